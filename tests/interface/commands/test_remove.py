"""`partrain remove`."""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from partrain.store.run_directory import RunDirectory
from partrain.system import fault_injection
from tests.program import Result
from tests.sample_runs import write_run


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of runs, which contains the runs a and b, in the current directory."""
    monkeypatch.chdir(tmp_path)
    for name, hour in (("a", 10), ("b", 11)):
        write_run(tmp_path / "runs" / name, started=f"2026-11-24T{hour}:00:00+00:00")
    return tmp_path / "runs"


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make stdin a terminal on which an answer has been typed, and stderr look like one."""

    def answer(text: str) -> None:
        controller, terminal = pty.openpty()
        os.write(controller, text.encode())
        monkeypatch.setattr(sys, "stdin", os.fdopen(terminal, "r"))
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        monkeypatch.setenv("NO_COLOR", "1")

    return answer


def test_runs_are_removed_and_the_space_is_named(call_partrain: Callable[..., Result], runs: Path) -> None:
    result = call_partrain("remove", "last", "last~1", "--yes")
    assert (result.exit_code, result.stdout) == (0, "")
    assert re.fullmatch(r"removed runs/b: 0\.\d MiB\nremoved runs/a: 0\.\d MiB\n", result.stderr)
    assert os.listdir(runs) == []


@pytest.mark.parametrize(
    ("answer", "left"),
    [("y\n", ["b"]), ("YES\n", ["b"]), ("n\n", ["a", "b"]), ("\n", ["a", "b"]), ("\x04", ["a", "b"])],
)
def test_on_a_terminal_it_asks_first(
    call_partrain: Callable[..., Result], runs: Path, answering: Callable[[str], None], answer: str, left: list[str]
) -> None:
    (runs / "a" / "my.txt").write_text("mine")
    answering(answer)
    result = call_partrain("remove", "a")
    assert result.exit_code == 0
    assert "MiB, with 1 file that partrain has not written: my.txt\nremove this run? [y/N] " in result.stderr
    assert sorted(os.listdir(runs)) == left
    assert ("nothing was removed" in result.stderr) == (len(left) == 2)
    sys.stdin.close()


def test_without_a_terminal_and_without_yes_nothing_is_removed(
    call_partrain: Callable[..., Result], runs: Path
) -> None:
    result = call_partrain("remove", "a")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Add --yes" in result.stderr
    assert sorted(os.listdir(runs)) == ["a", "b"]


def test_run_that_is_being_written_is_not_removed_nor_are_the_others(
    call_partrain: Callable[..., Result], runs: Path
) -> None:
    with RunDirectory.open(runs / "b").lock():
        result = call_partrain("remove", "a", "b", "--yes")
    assert result.exit_code == 2
    assert f"process {os.getpid()} on" in result.stderr
    assert "is writing into this run" in result.stderr
    assert sorted(os.listdir(runs)) == ["a", "b"]


def test_links_and_what_is_outside_the_directory_of_runs_are_refused(
    call_partrain: Callable[..., Result], runs: Path
) -> None:
    (runs / "link").symlink_to(runs / "a")
    (runs / "stranger").mkdir()
    write_run(runs.parent / "other" / "c")
    write_run(runs / "a" / "inner")
    for name, said in (
        ("runs/link", "is a link to"),
        ("runs/stranger", "is not a run"),
        ("other/c", "--runs-dir"),
        ("runs/../other/c", "is not in the directory of runs, runs"),
        ("runs/a/inner", "is not in the directory of runs, runs"),
        ("runs", "is not in the directory of runs, runs"),
        ("runs/..", "is not in the directory of runs, runs"),
        ("/", "is not in the directory of runs, runs"),
        ("zzz", "no such run"),
    ):
        result = call_partrain("remove", "a", name, "--yes")
        assert (result.exit_code, result.stdout) == (2, "")
        assert said in result.stderr
        assert "Traceback" not in result.stderr
    assert sorted(os.listdir(runs)) == ["a", "b", "link", "stranger"]
    assert call_partrain("remove", "c", "--runs-dir", "other", "--yes").exit_code == 0
    assert not (runs.parent / "other" / "c").exists()


def test_a_run_named_twice_is_removed_once(call_partrain: Callable[..., Result], runs: Path) -> None:
    result = call_partrain("remove", "a", "runs/a", "--yes")
    assert (result.exit_code, result.stderr.count("removed")) == (0, 1)


def test_damaged_and_unfinished_runs_can_be_removed_and_targets_of_links_stay(
    call_partrain: Callable[..., Result], runs: Path
) -> None:
    (runs / "a" / "run.json").write_text("{")
    elsewhere = runs.parent / "elsewhere"
    (runs / "a" / "checkpoints").rename(elsewhere)
    (runs / "a" / "checkpoints").symlink_to(elsewhere)
    (runs / "unfinished" / "checkpoints").mkdir(parents=True)
    assert call_partrain("remove", "runs/a", "runs/unfinished", "--yes").exit_code == 0
    assert os.listdir(runs) == ["b"]
    assert len(os.listdir(elsewhere)) == 1


@pytest.mark.parametrize("command", [("list",), ("remove", "b", "--yes")])
def test_removal_that_was_killed_is_completed_by_the_next_command(
    run_partrain: Callable[..., Result], runs: Path, command: tuple[str, ...]
) -> None:
    killed = run_partrain("remove", "a", "--yes", env={fault_injection.VARIABLE: "run renamed for removal|1"})
    assert killed.exit_code == -signal.SIGKILL
    assert len(os.listdir(runs)) == 2
    (runs / ".partrain-removed-mine").mkdir()
    assert run_partrain(*command).exit_code == 0
    assert sorted(os.listdir(runs)) == sorted([".partrain-removed-mine", *(["b"] if command == ("list",) else [])])


def test_removal_that_still_runs_is_left_to_its_process(
    call_partrain: Callable[..., Result], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = []

    def list_meanwhile(path: Path) -> None:
        listed.append(call_partrain("list").exit_code)
        assert path.is_dir()
        rmtree(path)

    rmtree = shutil.rmtree
    monkeypatch.setattr(shutil, "rmtree", list_meanwhile)
    assert call_partrain("remove", "a", "--yes").exit_code == 0
    assert (listed, os.listdir(runs)) == ([0], ["b"])
