"""Directories that a run left when it was killed before it began are recognised and taken over, and no others."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from partrain.errors import RunError
from partrain.store.run_directory import RunDirectory
from partrain.store.run_location import RunLocation
from partrain.store.unfinished_run import is_ready_to_begin, is_unfinished

FIRST_STEP = "checkpoints/step-00000000.safetensors"
# In the order of their creation.
FIRST_FILES = ("run.lock", "train.log", "config.yaml")


@pytest.fixture
def left(tmp_path: Path) -> Callable[..., Path]:
    """Make a directory with `checkpoints`, and with these files."""

    def make(*names: str) -> Path:
        path = tmp_path / "run"
        (path / "checkpoints").mkdir(parents=True)
        for name in names:
            (path / name).write_text(name)
        return path

    return make


@pytest.mark.parametrize("num_files", range(4))
@pytest.mark.parametrize("more", [(), (FIRST_STEP,), (".run.json.99999999.tmp", "checkpoints/.step.99999999.tmp")])
def test_unfinished_run_is_taken_over(left: Callable[..., Path], num_files: int, more: tuple[str, ...]) -> None:
    path = left(*FIRST_FILES[:num_files], *more)
    assert is_unfinished(path)
    assert is_ready_to_begin(path) == (num_files == 3 and FIRST_STEP not in more)
    with pytest.raises(RunError, match="a run was killed here before it began"):
        RunDirectory.open(path)
    location = RunLocation(path.parent, path)
    location.require_creatable()
    with location.create("small").lock() as run:
        assert set(os.listdir(path)) == {"checkpoints", "run.lock"}
        assert run.checkpoints.files() == []
        run.discard()
    assert not path.exists()


@pytest.mark.parametrize(
    "names",
    [
        ("notes.txt",),
        ("config.yaml",),  # a user's: a run creates its lock file first
        ("run.lock", "config.yaml"),
        (*FIRST_FILES, "metrics.jsonl"),
        (*FIRST_FILES, "run.json"),
        (*FIRST_FILES, "checkpoints/step-00000001.safetensors"),
        ("checkpoints/notes.txt",),
    ],
)
def test_other_directories_are_refused_and_not_touched(left: Callable[..., Path], names: tuple[str, ...]) -> None:
    path = left(*names)
    assert not is_unfinished(path)
    with pytest.raises(RunError, match="exists already"):
        RunLocation(path.parent, path).require_creatable()
    with pytest.raises(RunError, match="exists already"):
        RunDirectory.create_at(path)
    assert all((path / name).read_text() == name for name in names)


def test_empty_directory_link_and_file_are_not_unfinished_runs(left: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(left())
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    assert not any(is_unfinished(tmp_path / name) for name in ("link", "empty", "file", "missing"))


def test_directory_that_another_process_has_taken_over_is_refused_and_stays(left: Callable[..., Path]) -> None:
    path = left()
    runs = [RunDirectory.create_at(path) for _ in range(2)]
    with runs[0].lock():
        with pytest.raises(RunError, match="is writing into this run"):
            runs[1].lock()
        runs[1].discard()
        runs[0].write_run_json({"status": "running"})
    with pytest.raises(RunError, match="exists already"):
        runs[1].lock()
    runs[1].discard()
    assert RunDirectory.open(path).status() == "interrupted"


def test_no_directory_is_empty_under_the_name_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    rename = os.rename

    def look(source: Path, target: Path) -> None:
        assert not target.exists()
        rename(source, target)
        seen.append(os.listdir(target))

    monkeypatch.setattr(os, "rename", look)
    RunDirectory.create_at(tmp_path / "run")
    assert seen == [["checkpoints"]]
    assert os.listdir(tmp_path) == ["run"]
