"""The commands for runs, on a sweep."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from partrain.store.run_directory import RunDirectory
from partrain.store.sweep_directory import SweepDirectory
from tests.program import Result
from tests.sample_runs import write_run
from tests.store.test_sweep_directory import record_of


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of runs, which contains the run a, and the sweep s with two runs of three."""
    monkeypatch.chdir(tmp_path)
    runs = tmp_path / "runs"
    write_run(runs / "a", started="2026-11-24T10:00:00+00:00")
    sweep = SweepDirectory(runs / "s")
    with sweep.locked():
        sweep.write(record_of(3))
    for name, hour in (("trial-001", 11), ("trial-002", 12)):
        write_run(runs / "s" / name, started=f"2026-11-24T{hour}:00:00+00:00")
    return runs


def test_a_sweep_is_listed_below_the_runs_and_its_runs_by_name(
    call_partrain: Callable[..., Result], runs: Path
) -> None:
    lines = call_partrain("list").stdout.splitlines()
    assert [line.split()[0] for line in lines if line] == ["name", "a", "sweep"]
    assert lines[-1] == "sweep s: 2 of 3 trainings complete; partrain list runs/s"
    assert [line.split()[0] for line in call_partrain("list", "s").stdout.splitlines()] == [
        *("name", "trial-002", "trial-001")
    ]
    assert call_partrain("list", "a").refusal.startswith("error: runs/a: is not a sweep")
    with SweepDirectory(runs / "s").locked():
        assert "complete, running;" in call_partrain("list").stdout


def test_the_runs_of_a_sweep_are_compared(call_partrain: Callable[..., Result], runs: Path) -> None:
    result = call_partrain("compare", "s")
    assert result.exit_code == 0, result.stderr
    assert "trial-001" in result.stdout
    assert "trial-002" in result.stdout
    assert "are the same run" in call_partrain("compare", "s", "s/trial-001").refusal


def test_last_is_not_a_run_of_a_sweep(call_partrain: Callable[..., Result], runs: Path) -> None:
    assert call_partrain("note", "last", "mine").exit_code == 0
    assert (runs / "a/notes.jsonl").exists()
    assert call_partrain("note", "s", "mine").refusal.startswith(
        "error: runs/s: is a sweep, not a run. Name one of its"
    )


def test_a_sweep_is_removed_with_its_runs_unless_one_is_written(
    call_partrain: Callable[..., Result], runs: Path
) -> None:
    with RunDirectory.open(runs / "s/trial-002").lock():
        assert "is writing into this sweep" in call_partrain("remove", "s", "--yes").refusal
    (runs / "s/trial-001/my.txt").write_text("mine")
    result = call_partrain("remove", "s", "--yes")
    assert result.exit_code == 0
    assert "with 1 file that partrain has not written: trial-001/my.txt" in result.stderr
    assert os.listdir(runs) == ["a"]
