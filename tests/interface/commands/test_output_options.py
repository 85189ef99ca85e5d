"""Every option that names a file to write refuses what must not be replaced."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.noise_data import noise_examples, write_idx_folder
from tests.program import Result
from tests.saved_runs import write_saved_run

Call = Callable[..., Result]

# Each command with an option that names a file, which follows.
COMMANDS = {
    "compare": ("compare", "one", "two", "--html"),
    "data show": ("data", "show", "noise", "--sheet"),
    "data pack": ("data", "pack", "noise", "--to"),
    "export parameters": ("export", "one", "--format", "npz", "--to"),
    "export metrics": ("export", "one", "--format", "csv", "--to"),
}
# The directory is not empty.
REFUSED = (
    "runs/one/run.json",
    "runs/one/metrics.jsonl",
    "runs/one/summary.json",  # before training has written it
    "runs/one/checkpoints/step-00000002.safetensors",
    "runs/one/checkpoints/another",
    "runs/one/evaluation-test.json",
    "runs/one/plots/cost.png",
    "elsewhere/step-00000002.safetensors",
    "link to a run's file",
    "link to a device",
    "link to a pipe",
    "/dev/null",
    "/dev/stdout",
    "pipe.npz",
    "socket",
    "runs/one",
)


@pytest.fixture(autouse=True)
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs, one of them with its checkpoints on "another disk"; a data set; a pipe, a socket, and links."""
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        write_saved_run(Path("runs", name))
    os.rename("runs/two/checkpoints", "disk")
    os.symlink("../../disk", "runs/two/checkpoints")
    os.symlink("runs/two/checkpoints", "elsewhere")
    Path("runs/one/plots").mkdir()
    write_idx_folder(tmp_path / "noise", noise_examples(60), noise_examples(20, seed=1))
    os.symlink("runs/one/run.json", "link to a run's file")
    os.symlink("/dev/null", "link to a device")
    os.symlink("pipe.npz", "link to a pipe")
    os.mkfifo("pipe.npz")
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("socket")


def content_of(folder: Path) -> dict[Path, bytes | str]:
    """Return the content of each file and the target of each link, by its path."""
    content: dict[Path, bytes | str] = {}
    for path in folder.rglob("*"):
        if path.is_symlink():
            content[path] = os.readlink(path)
        elif path.is_file():
            content[path] = path.read_bytes()
    return content


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_what_must_stay_is_refused_before_any_work_and_stays(
    call_partrain: Call, command: tuple[str, ...], tmp_path: Path
) -> None:
    before = content_of(tmp_path)
    for target in REFUSED:
        result = call_partrain(*command, target)
        assert (result.exit_code, result.stdout) == (2, ""), target
        assert f"{target}: " in result.stderr.splitlines()[-1]
        assert "Traceback" not in result.stderr
    assert content_of(tmp_path) == before


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_file_may_be_replaced_and_a_link_keeps_its_place(call_partrain: Call, command: tuple[str, ...]) -> None:
    Path("old.npz").write_text("old")
    os.symlink("old.npz", "link.npz")
    result = call_partrain(*command, "link.npz")
    assert result.exit_code == 0, result.stderr
    assert os.readlink("link.npz") == "old.npz"
    assert len(Path("old.npz").read_bytes()) > 100


def test_events_and_arrays_are_not_written_among_a_runs_files(call_partrain: Call, tmp_path: Path) -> None:
    before = content_of(tmp_path)
    for folder in ("runs/one/plots", "runs/one/checkpoints", "runs/one/checkpoints/new"):
        for command in (COMMANDS["data pack"], ("export", "one", "--format", "tensorboard", "--to")):
            result = call_partrain(*command, folder)
            assert result.exit_code == 2
            assert "the run" in result.stderr
    assert content_of(tmp_path) == before
