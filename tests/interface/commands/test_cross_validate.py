"""`partrain cross-validate`."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev

import pytest

from tests.program import Result

CONFIG = {"data.train_examples": 200, "data.validation_examples": 40, "training.epochs": 2}


def test_each_example_is_predicted_once_and_each_fold_is_an_ordinary_run(
    run_partrain: Callable[..., Result], small_config: Callable[..., Path], tmp_path: Path
) -> None:
    result = run_partrain("cross-validate", "--config", small_config(CONFIG), "--folds", 3, "--workers", 0)
    sweep = tmp_path / result.run
    with open(sweep / "predictions.csv") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["example"]) for row in rows] == list(range(240))
    assert Counter(row["fold"] for row in rows).most_common()[-1][1] >= 80 - 10
    accuracies = []
    for fold in (1, 2, 3):
        run = sweep / f"trial-00{fold}"
        own = [row for row in rows if row["fold"] == str(fold)]
        accuracies.append(fmean(row["label"] == row["prediction"] for row in own))
        final = json.loads((run / "summary.json").read_text())["final"]
        assert final["validation/accuracy"] == pytest.approx(accuracies[-1])
    mean, spread = fmean(accuracies), 100 * stdev(accuracies)
    assert f"validation/accuracy: {mean:.2%} ± {spread:.2f} (mean ± standard deviation of 3 folds)" in result.stdout
    assert f"240 examples: accuracy {fmean(row['label'] == row['prediction'] for row in rows):.2%}" in result.stdout
    alone = run_partrain("--config", sweep / "trial-002/config.yaml", "--workers", 1, "-q", "--run-dir", "alone").run
    digests = [
        json.loads((run / "summary.json").read_text())["parameters_sha256"]
        for run in (tmp_path / alone, sweep / "trial-002")
    ]
    assert digests[0] == digests[1]
    assert (sweep / "trial-002/config.yaml").read_text() == (tmp_path / alone / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--folds", "1"], "give at least 2 folds"),
        (["--folds", "0"], "--folds"),
        (["--folds", "200"], "200 folds need at least 200 examples of each class"),
        (["--set", "data.fold={number: 1, of: 2}"], "data.fold: leave it out"),
    ],
)
def test_bad_input_is_one_message(
    run_partrain: Callable[..., Result],
    small_config: Callable[..., Path],
    tmp_path: Path,
    words: list[str],
    message: str,
) -> None:
    result = run_partrain("cross-validate", "--config", small_config(), *words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not list(tmp_path.glob("runs/*"))
