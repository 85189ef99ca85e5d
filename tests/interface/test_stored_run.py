"""The Python API: notes about a run, and its removal."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import partrain
from partrain.errors import ConfigError, ResourceError, RunError
from partrain.store import run_removal
from partrain.store.run_directory import RunDirectory
from tests.program import Result
from tests.sample_runs import write_run


def test_notes_are_those_of_the_command(call_partrain: Callable[..., Result], tmp_path: Path) -> None:
    path = write_run(tmp_path / "a")
    run = partrain.open_run(path)
    assert run.notes == []
    run.add_note("from Python\nin two lines")
    assert call_partrain("note", path, "from", "the shell").exit_code == 0
    assert [note.text for note in run.notes] == ["from Python\nin two lines", "from the shell"]
    printed = json.loads(call_partrain("note", path, "--json").stdout)
    assert printed == [{"time": note.time, "text": note.text} for note in run.notes]


@pytest.mark.parametrize("text", ["", " \n", None, 7])
def test_note_without_a_text_is_refused(tmp_path: Path, text: Any) -> None:
    run = partrain.open_run(write_run(tmp_path / "a"))
    with pytest.raises(ConfigError, match="add_note"):
        run.add_note(text)
    assert not (tmp_path / "a/notes.jsonl").exists()


def test_notes_that_cannot_be_read_or_written_are_errors(tmp_path: Path) -> None:
    run = partrain.open_run(write_run(tmp_path / "a"))
    (tmp_path / "a/notes.jsonl").mkdir()
    with pytest.raises(RunError, match=r"notes\.jsonl: cannot be read: Is a directory"):
        print(run.notes)
    with pytest.raises(ResourceError, match="cannot be written: Is a directory"):
        run.add_note("x")


def test_run_is_removed_wherever_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("runs/a", "elsewhere/b"):
        run = partrain.open_run(write_run(Path(path)))
        run.remove()
        assert not os.listdir(Path(path).parent)
        with pytest.raises(RunError, match="is not a run"):
            run.remove()


def test_run_that_is_being_written_and_a_link_are_not_removed(tmp_path: Path) -> None:
    path = write_run(tmp_path / "a")
    with RunDirectory.open(path).lock(), pytest.raises(RunError, match="is writing into this run"):
        partrain.open_run(path).remove()
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(RunError, match="is a link to"):
        partrain.open_run(tmp_path / "link").remove()
    assert sorted(os.listdir(tmp_path)) == ["a", "link"]


def test_what_is_left_of_a_run_that_could_not_be_removed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> None:
        raise OSError(5, "Input/output error")

    run = partrain.open_run(write_run(tmp_path / "a"))
    monkeypatch.setattr(run_removal, "sync_folder", fail)
    with pytest.raises(ResourceError) as caught:
        run.remove()
    (left,) = tmp_path.iterdir()
    assert str(caught.value).endswith(f"removed completely: Input/output error. The rest is in {left}.")
