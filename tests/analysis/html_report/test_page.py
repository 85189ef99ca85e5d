"""The page as a file."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from partrain.analysis.html_report import page as page_module
from tests.program import Result
from tests.sample_runs import write_run


def test_page_is_one_file_that_names_nothing_outside(written_page: Path) -> None:
    text = written_page.read_text()
    assert "src=" not in text.replace("&lt;img src=x", "")
    assert "href=" not in text
    assert page_module.POLICY in text
    assert "<script>window" not in text


def test_page_of_twenty_long_runs_weighs_little(tmp_path: Path, call_partrain: Callable[..., Result]) -> None:
    runs = [write_run(tmp_path / f"run-{seed}", seed=seed, num_steps=20) for seed in range(20)]
    long_run = write_run(tmp_path / "long", num_steps=10_000)
    for run in runs:
        shutil.copy(long_run / "metrics.jsonl", run / "metrics.jsonl")
    result = call_partrain("compare", *runs, "--html", tmp_path / "page.html", "-q")
    assert (result.exit_code, result.stderr) == (0, "")
    assert (tmp_path / "page.html").stat().st_size < 8_000_000


def test_mistakes_are_reported(
    call_partrain: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = write_run(tmp_path / "a"), write_run(tmp_path / "b")
    for file in (tmp_path, tmp_path / "missing" / "page.html"):
        result = call_partrain("compare", *runs, "--html", file)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "cannot be written" in result.stderr
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    result = call_partrain("compare", *runs, "--html", tmp_path / "page.html")
    assert result.exit_code == 2
    assert "pip install 'partrain[report]'" in result.stderr
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
