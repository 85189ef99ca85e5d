"""The page as a file."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from partrain.analysis.html_report.curves import curves
from partrain.analysis.html_report.document import POLICY
from partrain.analysis.logged_run import LoggedRun
from tests.program import Result
from tests.sample_runs import evaluation, write_json, write_rows, write_run


def test_page_is_one_file_that_names_nothing_outside(written_page: Path) -> None:
    text = written_page.read_text()
    assert "src=" not in text.replace("&lt;img src=x", "")
    assert "href=" not in text
    assert POLICY in text
    assert "<script>window" not in text


@pytest.mark.slow
def test_page_of_twenty_long_runs_weighs_little(tmp_path: Path, call_partrain: Callable[..., Result]) -> None:
    runs = [write_run(tmp_path / f"run-{seed}", seed=seed, num_steps=20) for seed in range(20)]
    long_run = write_run(tmp_path / "long", num_steps=10_000)
    for run in runs:
        shutil.copy(long_run / "metrics.jsonl", run / "metrics.jsonl")
    result = call_partrain("compare", *runs, "--html", tmp_path / "page.html", "-q")
    assert (result.exit_code, result.stderr) == (0, "")
    assert (tmp_path / "page.html").stat().st_size < 8_000_000


def test_page_of_one_run_shows_all_of_it(tmp_path: Path, call_partrain: Callable[..., Result]) -> None:
    run = write_run(tmp_path / "only")
    result = call_partrain("compare", run, "--html", tmp_path / "page.html")
    assert result.exit_code == 0
    assert re.search("test accuracy +98.00%", result.stdout)
    text = (tmp_path / "page.html").read_text()
    for part in ("<h1>Run only</h1>", "training.optimizer.lr", "98.00%"):
        assert part in text
    assert "Comparison" not in text
    alone = call_partrain("compare", run)
    assert (alone.exit_code, alone.stdout) == (2, "")
    assert "one run and --html FILE" in alone.stderr


def test_curves_contain_what_a_run_has_logged(tmp_path: Path) -> None:
    plain = write_run(tmp_path / "plain", num_steps=3)
    rich = write_run(tmp_path / "rich", num_steps=3)
    at = {"step": 1, "epoch": 0.5, "examples": 32, "time_s": 0.5}
    logged = {"train/loss": 1.0, "train/gradient_norm/mean": 2.5, "lr": 0.1, "examples_per_s": 64.0}
    write_rows(rich, [at | logged, at | {"privacy/epsilon": 0.25}, at | {"step": 3, "epoch": 1.5, "train/loss": "NaN"}])
    first, second = curves([LoggedRun.open(path) for path in (plain, rich)])
    assert set(first["train"]) == {"step", "examples", "milliseconds", "loss", "accuracy", "learning_rate"}
    assert second["train"] == {
        "step": [1, 2],
        "examples": [32, 0],
        "milliseconds": [500, 0],
        "loss": [1.0, None],
        "gradient_norm": [2.5, None],
        "learning_rate": [0.1, None],
        "examples_per_second": [64.0, None],
    }
    assert second["privacy"] == {"step": [1], "examples": [32], "milliseconds": [500], "epsilon": [0.25]}
    assert second["steps_per_epoch"] == 2


def test_results_have_a_row_for_each_result_and_a_column_for_each_run(written_page: Path) -> None:
    text = written_page.read_text()
    table = text[text.index('<table class="sortable results">') :]
    rows = table[: table.index("</table>")].split("<tr>")[1:]
    assert rows[0].count("<th") == 3
    accuracy = next(row for row in rows if "test accuracy" in row)
    assert re.findall("<td data-run=.(.). data-value", accuracy) == ["0", "1", "2"]
    assert "<strong>98.20%</strong>" in accuracy


def test_most_frequent_confusions_replace_the_matrix_of_many_classes(
    tmp_path: Path, call_partrain: Callable[..., Result]
) -> None:
    run = write_run(tmp_path / "only")
    names = [f"kind {k}" for k in range(40)]
    labels = [*range(40), 7, 7, 7]
    write_json(run / "evaluation-test.json", evaluation(labels, [*range(39), 0, 3, 3, 7], names))
    assert call_partrain("compare", run, "--html", tmp_path / "page.html", "-q").exit_code == 0
    text = (tmp_path / "page.html").read_text()
    table = text[text.index('<table class="sortable confusions">') :]
    cells = re.findall("<td data-value=[^>]*>([^<]*)", table[: table.index("</table>")])
    assert cells == ["kind 7", "kind 3", "2", "kind 39", "kind 0", "1"]


def test_mistakes_are_reported(
    call_partrain: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = write_run(tmp_path / "a"), write_run(tmp_path / "b")
    for file, reason in ((tmp_path, "is a directory"), (tmp_path / "missing" / "page.html", "cannot be written")):
        result = call_partrain("compare", *runs, "--html", file)
        assert (result.exit_code, result.stdout) == (2, "")
        assert reason in result.stderr
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    result = call_partrain("compare", *runs, "--html", tmp_path / "page.html")
    assert result.exit_code == 2
    assert "pip install 'partrain[report]'" in result.stderr
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
