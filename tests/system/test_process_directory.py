from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from partrain.errors import ResourceError
from partrain.system import process_directory as module
from partrain.system.process_directory import MAX_PARENT_BYTES, process_directory
from tests.program import ROOT

MAKE = "from partrain.system.process_directory import process_directory; print(process_directory(), flush=True); "


def start(parent: Path, code: str = "input()") -> tuple[subprocess.Popen[str], Path]:
    """Start a process that makes its directory in `parent`, and then runs `code`."""
    env = os.environ | {"TMPDIR": str(parent), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", MAKE + code], env=env, stdin=-1, stdout=-1, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


@pytest.fixture
def parent() -> Iterator[Path]:
    """A directory with a short path, unlike `tmp_path`."""
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


@pytest.fixture
def in_fork() -> Callable[..., bytes]:
    """Call a function in a fork, and return what it returns."""

    def call(function: Callable[[], bytes]) -> bytes:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(writer, function())
            finally:
                os._exit(0)
        os.close(writer)
        with open(reader, "rb") as file:
            said = file.read()
        os.waitpid(child, 0)
        return said

    return call


def test_directory_is_deleted_when_its_process_ends(parent: Path) -> None:
    process, path = start(parent, "(process_directory() / 'file').touch(); input()")
    assert path.parent == parent
    assert path.stat().st_mode & 0o777 == 0o700
    process.communicate("\n", timeout=60)
    assert list(parent.iterdir()) == []


def test_directory_of_a_killed_process_is_deleted_by_the_next_one_and_those_of_others_are_not(parent: Path) -> None:
    users = [
        parent / "partrain-process-results",
        parent / "partrain-process-",
        parent / "partrain-process-abcdefghi",
    ]
    for directory in users:
        directory.mkdir()
    killed, left = start(parent)
    running, kept = start(parent)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert left.is_dir()
    process, path = start(parent)
    assert sorted(parent.iterdir()) == sorted([*users, kept, path])
    process.communicate("\n", timeout=60)
    running.communicate("\n", timeout=60)
    assert sorted(parent.iterdir()) == sorted(users)


def test_link_is_not_followed(parent: Path) -> None:
    (parent / "target").mkdir()
    (parent / "target/file").touch()
    (parent / "partrain-process-abcdefgh").symlink_to("target")
    process, _ = start(parent)
    process.communicate("\n", timeout=60)
    assert (parent / "target/file").exists()


def test_socket_fits_where_the_path_of_temporary_files_is_too_long(
    parent: Path, monkeypatch: pytest.MonkeyPatch, in_fork: Callable[..., bytes]
) -> None:
    short = parent / "short"
    long = parent / ("a" * MAX_PARENT_BYTES)
    for directory in (short, long):
        directory.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    monkeypatch.setattr(module, "SHORT_PARENTS", ("/is/not/there", str(short)))
    path = Path(os.fsdecode(in_fork(lambda: os.fsencode(process_directory()))))
    assert path.parent == short
    longest = Path("/" + "a" * (MAX_PARENT_BYTES - 1), path.name, "listener-abcdefgh")
    with socket.socket(socket.AF_UNIX) as listener, pytest.raises(FileNotFoundError):
        listener.bind(str(longest))  # not "AF_UNIX path too long"


def test_no_usable_directory_is_a_message(monkeypatch: pytest.MonkeyPatch, in_fork: Callable[..., bytes]) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/" + "a" * 200)
    monkeypatch.setattr(module, "SHORT_PARENTS", ())

    def message() -> bytes:
        with pytest.raises(ResourceError) as raised:
            process_directory()
        return str(raised.value).encode()

    assert b"too long for a socket; set TMPDIR" in in_fork(message)


def test_file_system_without_locks_keeps_the_directories_of_others(
    parent: Path, monkeypatch: pytest.MonkeyPatch, in_fork: Callable[..., bytes]
) -> None:
    def fail(*args: object) -> None:
        raise OSError(38, "Function not implemented")

    other = parent / "partrain-process-abcdefgh"
    other.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(parent))
    monkeypatch.setattr(fcntl, "flock", fail)
    assert Path(os.fsdecode(in_fork(lambda: os.fsencode(process_directory())))).is_dir()
    assert other.is_dir()


def test_directory_that_cannot_be_opened_is_a_message_and_no_endless_attempt(
    parent: Path, monkeypatch: pytest.MonkeyPatch, in_fork: Callable[..., bytes]
) -> None:
    def fail(*args: object, **options: object) -> int:
        raise OSError(24, "Too many open files")

    def message() -> bytes:
        monkeypatch.setattr(os, "open", fail)
        with pytest.raises(ResourceError) as raised:
            process_directory()
        monkeypatch.undo()
        return str(raised.value).encode()

    monkeypatch.setattr("tempfile.tempdir", str(parent))
    assert b"Too many open files" in in_fork(message)
    assert not list(parent.iterdir())
