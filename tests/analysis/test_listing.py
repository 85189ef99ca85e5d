from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from partrain.analysis.listing import list_runs
from partrain.analysis.run_table import describe, duration
from partrain.store.run_directory import RunDirectory
from partrain.system.terminal_text import num_columns
from tests.program import ROOT, Result
from tests.sample_runs import rows_of_a_training, write_json, write_rows, write_run


def started(minute: int) -> str:
    return datetime(2026, 11, 24, 10, minute, tzinfo=UTC).isoformat()


def names(runs_dir: Path, **options: str) -> list[str]:
    return [entry["name"] for entry in list_runs(runs_dir, **options)]


def test_the_newest_run_comes_first(tmp_path: Path) -> None:
    for name, minute in (("x", 2), ("y", 3), ("z", 1)):
        write_run(tmp_path / name, started=started(minute))
    assert names(tmp_path) == ["y", "x", "z"]


def test_runs_are_sorted_by_any_column_and_those_without_a_value_come_last(tmp_path: Path) -> None:
    write_run(tmp_path / "a", final_accuracy=0.9)
    write_run(tmp_path / "b", final_accuracy=0.95)
    (tmp_path / "c").mkdir()
    assert names(tmp_path, sort="test") == ["b", "a", "c"]
    assert names(tmp_path, sort="name") == ["a", "b", "c"]
    assert names(tmp_path, sort="status") == ["c", "b", "a"]


def test_status_is_true_after_a_crash_and_while_a_run_is_written(tmp_path: Path) -> None:
    write_run(tmp_path / "died", status="running")
    alive = write_run(tmp_path / "alive", status="running")
    with RunDirectory.open(alive).lock():
        assert names(tmp_path, status="running") == ["alive"]
    assert sorted(names(tmp_path, status="interrupted")) == ["alive", "died"]


def test_values_of_an_unfinished_run_come_from_its_metrics(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", status="running", num_steps=30)
    write_json(run / "summary.json", {"format": 1, "steps": 10, "total_seconds": 1.0})  # of an earlier session
    (entry,) = list_runs(tmp_path)
    assert (entry["steps"], entry["total_seconds"], entry["test_accuracy"]) == (30, 2.5, None)
    assert entry["best_validation_accuracy"] == pytest.approx(0.98)


def test_broken_runs_are_listed_and_do_not_stop_the_others(
    call_partrain: Callable[..., Result], tmp_path: Path
) -> None:
    write_run(tmp_path / "runs" / "good")
    for name, content in (("torn", '{"format": 1, "sta'), ("newer", '{"format": 99}'), ("list", "[]")):
        write_run(tmp_path / "runs" / name)
        (tmp_path / "runs" / name / "run.json").write_text(content)
    (tmp_path / "runs" / "empty").mkdir()
    (tmp_path / "runs" / "a file").write_text("no run")
    result = call_partrain("list", "--runs-dir", tmp_path / "runs")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = {line.split()[0]: line for line in result.stdout.splitlines() if line}
    assert "98.00%" in lines["good"]
    for name in ("torn", "newer", "list", "empty"):
        assert f"{name}: " in result.stdout
    assert "a file" not in result.stdout
    assert result.stdout.count(" broken ") == 4


def test_values_that_are_not_numbers_are_not_shown(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", workers="many", started="yesterday")
    write_json(
        run / "summary.json", {"format": 1, "steps": True, "epochs": "NaN", "best": [], "test": {"accuracy": 10**400}}
    )
    (entry,) = list_runs(tmp_path)
    assert (entry["status"], entry["steps"], entry["epochs"]) == ("completed", 40, 2)
    assert (entry["workers"], entry["started"], entry["test_accuracy"]) == (None, None, None)


def test_number_of_ranks_is_shown_with_the_number_of_workers(
    call_partrain: Callable[..., Result], tmp_path: Path
) -> None:
    write_run(tmp_path / "alone")
    write_run(tmp_path / "joined", workers=8, ranks=[{"host": "a", "workers": 4}, {"host": "b", "workers": 4}])
    write_run(tmp_path / "strange", ranks="two")
    lines = {line.split()[0]: line for line in call_partrain("list", "--runs-dir", tmp_path).stdout.splitlines()}
    assert " 8 on 2 ranks " in lines["joined"]
    assert "rank" not in lines["alone"] + lines["strange"]
    assert [entry["ranks"] for entry in list_runs(tmp_path, "name")] == [None, 2, None]


def test_json_is_strict_and_holds_the_same_facts(call_partrain: Callable[..., Result], tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", status="interrupted")
    write_rows(run, [*rows_of_a_training(3, 0, 0.1, 0.9), {"step": 4, "examples_per_s": "NaN"}])
    result = call_partrain("list", "--runs-dir", tmp_path, "--json")
    (entry,) = json.loads(result.stdout, parse_constant=pytest.fail)
    assert (entry["name"], entry["status"], entry["steps"]) == ("run", "interrupted", 4)
    assert entry["examples_per_second"] is None


def test_names_cannot_control_the_terminal(call_partrain: Callable[..., Result], tmp_path: Path) -> None:
    write_run(tmp_path / "\033[2Jevil")
    write_run(tmp_path / "数字")
    result = call_partrain("list", "--runs-dir", tmp_path)
    assert result.exit_code == 0
    assert "\033" not in result.stdout
    assert "数字" in result.stdout


def test_no_runs_is_a_message_and_a_wrong_directory_is_an_error(
    call_partrain: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call_partrain("list") == Result(0, "", "no runs in runs\n")
    assert call_partrain("list", "--json") == Result(0, "[]\n", "")
    missing = call_partrain("list", "--runs-dir", "missing")
    assert (missing.exit_code, missing.stdout) == (2, "")
    assert "missing: cannot be read" in missing.stderr
    assert call_partrain("list", "--sort", "beauty").exit_code == 2


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    for number in range(3):
        write_run(tmp_path / f"run-{number}")
    command = [sys.executable, "-m", "partrain", "list", "--runs-dir", str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr:
        assert process.stderr.read() == ""
    assert process.wait(60) == 0


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.25, "0.2 s"), (95, "95 s"), (150, "2.5 min"), (3600 * 20, "20 h"), (86400 * 3, "3.0 d")]
)
def test_times_are_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_narrow_terminal_shows_fewer_columns(tmp_path: Path) -> None:
    write_run(tmp_path / "20261127-184804-small")
    entries, now = list_runs(tmp_path), datetime.now(UTC)
    wide, narrow = (describe(entries, now, width=width).splitlines() for width in (200, 80))
    assert wide[0].split() == describe(entries, now).splitlines()[0].split()
    assert max(map(len, narrow)) <= 80
    assert (
        {"name", "status", "steps", "validation", "test", "time", "age"}
        <= set(narrow[0].split())
        < set(wide[0].split())
    )


def test_list_shows_the_data_that_a_run_was_trained_on(call_partrain: Callable[..., Result], tmp_path: Path) -> None:
    write_run(tmp_path / "a", data={"name": "mnist", "source": "/home/you/.cache/partrain/mnist"})
    write_run(tmp_path / "b", data={"name": "synthetic-digits", "source": "drawn by partrain"})
    write_run(tmp_path / "c", data={"name": "folder", "source": "/data/photos/"})
    write_run(tmp_path / "d", data={"name": "arrays", "source": "images.npz"})
    write_run(tmp_path / "e", data=["mnist"])
    table = call_partrain("list", "--runs-dir", tmp_path, "--sort", "name").stdout
    column = table.splitlines()[0].split().index("data")
    assert [line.split()[column] for line in table.splitlines()[1:]] == [
        "mnist",
        "synthetic-digits",
        "photos",
        "images.npz",
        "-",
    ]
    entries = list_runs(tmp_path, sort="data")
    assert [entry["data"] for entry in entries] == ["arrays", "folder", "mnist", "synthetic-digits", None]
    assert entries[1]["data_source"] == "/data/photos/"


@pytest.mark.parametrize("name", ["20261127-184804-mnist", "20261127-184804-" + 90 * "x", 40 * "数"])
@pytest.mark.parametrize("data", ["mnist", "synthetic-digits", "folder"])
@pytest.mark.parametrize("width", [80, 100, 200])
def test_table_fits_the_terminal(tmp_path: Path, name: str, data: str, width: int) -> None:
    source = f"/data/{60 * 'y'}"
    write_run(tmp_path / name, num_steps=400, status="interrupted", data={"name": data, "source": source})
    write_run(tmp_path / "20261126", data={"name": data, "source": source})
    lines = describe(list_runs(tmp_path), datetime.now(UTC), width=width).splitlines()
    assert max(map(num_columns, lines)) <= width
    assert {"name", "status", "data", "validation", "test"} <= set(lines[0].split())
    assert any(line.startswith(name[:7]) for line in lines)
