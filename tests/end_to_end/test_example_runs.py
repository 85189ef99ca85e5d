"""The example runs in the repository: complete, consistent, and without names of a machine."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from partrain.analysis.trained_run import load_trained_run
from tests.program import Result

RUNS = Path(__file__).parents[2] / "runs"
EXAMPLES = pytest.mark.parametrize("name", ["example-mnist", "example-mnist-constant-lr"])


@EXAMPLES
def test_example_run_is_complete_and_small(name: str) -> None:
    run = RUNS / name
    files = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    (saved,) = (file for file in files if file.startswith("checkpoints/"))
    pictures = {f"plots/{kind}.png" for kind in ("accuracy", "cost", "filters")}
    pictures |= {f"plots/{kind}-test.png" for kind in ("confusion", "misclassified", "recall")}
    parts = {"config.yaml", "run.json", "metrics.jsonl", "summary.json", "train.log", "evaluation-test.json"}
    assert files - {"run.lock"} == {saved} | pictures | parts
    assert (run / saved).stat().st_size < 1_500_000
    assert sum((run / file).stat().st_size for file in files) < 2_000_000


@EXAMPLES
def test_example_run_matches_its_summary(name: str) -> None:
    run = load_trained_run(RUNS / name, "last", pytest.fail)
    summary = json.loads((RUNS / name / "summary.json").read_text())
    evaluation = json.loads((RUNS / name / "evaluation-test.json").read_text())
    assert hashlib.sha256(run.parameters.tobytes()).hexdigest() == summary["parameters_sha256"]
    assert run.step == summary["steps"] == evaluation["step"] == 3126
    assert sum(map(sum, evaluation["confusion"])) == evaluation["num_examples"] == 10_000
    assert evaluation["accuracy"] == summary["test"]["accuracy"] > 0.97


def test_example_runs_differ_in_the_schedule_alone() -> None:
    first, second = (yaml.safe_load((RUNS / n / "config.yaml").read_text()) for n in EXAMPLES.args[1])
    assert first["training"].pop("schedule")["name"] == "cosine"
    assert second["training"].pop("schedule")["name"] == "constant"
    assert first == second


@EXAMPLES
def test_example_run_names_no_machine(name: str) -> None:
    for path in (RUNS / name).rglob("*"):
        if path.suffix in (".json", ".jsonl", ".yaml", ".log"):
            folders = set(re.findall(r"(?<![\w.~])/(?!you/)\w+", path.read_text())) - {"/home", "/loss", "/accuracy"}
            assert folders == set(), path
    assert json.loads((RUNS / name / "run.json").read_text())["host"] == "example"


def test_example_run_predicts_an_image_file(run_partrain: Callable[..., Result], tmp_path: Path) -> None:
    picture = RUNS / "example-mnist" / "plots" / "filters.png"  # no digit, but a picture
    result = run_partrain("predict", str(RUNS / "example-mnist"), str(picture), "--json")
    assert result.exit_code == 0
    (prediction,) = json.loads(result.stdout)
    assert 0 < prediction["probability"] <= 1
