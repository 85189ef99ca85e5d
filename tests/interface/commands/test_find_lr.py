"""`partrain find-lr`."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.program import PartrainProcess, Result
from tests.small_run import write_small_config

Call = Callable[..., Result]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_small_config(tmp_path)


def find(call: Call, config: Path, *words: object) -> Result:
    return call("find-lr", "--config", config, "--workers", 0, "--steps", 40, *words)


def test_table_fits_80_columns_and_the_last_line_is_an_option_of_train(call_partrain: Call, config: Path) -> None:
    result = find(call_partrain, config, "--from", "1e-5", "-q")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["rate", "loss"]
    assert [line.split("<- ")[1] for line in lines if "<- " in line] == ["falls fastest", "suggestion", "smallest loss"]
    suggestion, option, value = lines[-1].split()
    assert (suggestion, option) == ("suggestion:", "--set")
    trained = call_partrain("--config", config, "--workers", 0, option, value, "--set", "training.max_steps=1", "-q")
    assert trained.exit_code == 0


def test_nothing_but_the_picture_is_written(call_partrain: Call, config: Path, tmp_path: Path) -> None:
    result = find(call_partrain, config, "--plot", "rates.png", "--json")
    assert "rates.png: the curve" in result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"small.yaml", "rates.png"}
    assert (tmp_path / "rates.png").read_bytes().startswith(b"\x89PNG")
    facts = json.loads(result.stdout)
    assert facts["falls_fastest_at"] < facts["suggestion"] < facts["smallest_loss_at"]
    assert len(facts["rates"]) == len(facts["losses"]) == len(facts["smoothed_losses"])


def test_divergence_is_no_failure(call_partrain: Call, config: Path) -> None:
    result = find(call_partrain, config, "--from", "1e-3", "--to", "1e30")
    assert result.exit_code == 0
    assert "the test ended early: at the rate" in result.stdout
    assert "error" not in result.stderr


def test_picture_that_cannot_be_written_loses_no_result(call_partrain: Call, config: Path) -> None:
    result = find(call_partrain, config, "--plot", "small.yaml/rates.png")
    assert result.exit_code == 2
    assert "rates.png: cannot be written" in result.stderr
    assert result.stdout.splitlines()[-1].startswith("suggestion: ")


def test_loss_that_does_not_fall_gives_no_suggestion(call_partrain: Call, config: Path) -> None:
    result = find(call_partrain, config, "--to", "1e-5", "-q")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1].startswith("no suggestion: the loss hardly falls")


def test_interruption_prints_what_there_is(start_partrain: Callable[..., PartrainProcess], tmp_path: Path) -> None:
    config = write_small_config(tmp_path)
    rates = ("--from", "1e-6", "--to", "1e-5", "--steps", 1_000_000)
    program = start_partrain("find-lr", "--config", config, "--workers", 1, *rates)
    program.wait_for("steps of 20 with rates from")
    program.send(signal.SIGINT)
    result = program.wait()
    assert result.exit_code == 130
    assert "the test ended early: interrupted after" in result.stdout
    assert result.stderr.splitlines()[-1] == "error: ended by SIGINT"


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (["--from", 1, "--to", 1], "the rate must rise"),
        (["--from", 0], "is not a number above 0"),
        (["--steps", 5], "give at least 20"),
        (["--plot", "curve.pdf"], "give it the suffix .png"),
        (["--plot", "directory.png"], "is a directory"),
        (["--set", "training.optimiser.lr=1"], "optimizer"),
    ],
)
def test_bad_argument_is_one_message(call_partrain: Call, config: Path, words: list[object], fragment: str) -> None:
    Path("directory.png").mkdir()
    result = call_partrain("find-lr", "--config", config, *words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert fragment in result.stderr
    assert "Traceback" not in result.stderr


def test_picture_without_matplotlib_is_refused_before_anything_is_computed(
    call_partrain: Call, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said = find(call_partrain, config, "--plot", "rates.png").refusal
    assert said.strip() == "error: --plot needs the package matplotlib: pip install 'partrain[plots]'"


def test_fine_tuning_is_tested_from_the_parameters_that_it_starts_from(call_partrain: Call, config: Path) -> None:
    assert call_partrain("--config", config, "--workers", 0, "--run-dir", "trained", "-q").exit_code == 0
    start = ("--init-from", "trained", "--strict")
    result = find(call_partrain, config, *start, "--json")
    assert "starts from the parameters of trained, step " in result.stderr
    steps = ("--set", "training.max_steps=1", "--set", "logging.every_steps=1")
    assert call_partrain("--config", config, "--workers", 0, "--run-dir", "tuned", *start, *steps).exit_code == 0
    first = json.loads(Path("tuned/metrics.jsonl").read_text().splitlines()[0])
    assert json.loads(result.stdout)["losses"][0] == first["train/loss"]


def test_parameters_that_do_not_fit_stop_the_test_before_its_first_step(call_partrain: Call, config: Path) -> None:
    assert call_partrain("--config", config, "--workers", 0, "--run-dir", "trained", "-q").exit_code == 0
    other = write_small_config(config.parent, {"network": ["flatten", {"dense": {"units": 10}}]})
    result = find(call_partrain, other, "--init-from", "trained", "--strict")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "does not fit the configured network" in result.stderr
    alone = find(call_partrain, config, "--strict")
    assert (alone.exit_code, alone.stdout) == (2, "")
    assert "--strict goes with --init-from" in alone.stderr
