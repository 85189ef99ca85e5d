"""A directory for the temporary files and sockets of this process, which does not outlive it for long.

It is deleted when the process ends. A killed process leaves it; but the kernel then releases the lock on it, and the
next process that makes such a directory deletes those without a lock.
"""

from __future__ import annotations

import atexit
import functools
import os
import re
import shutil
import tempfile
from pathlib import Path

from partrain.errors import ResourceError
from partrain.system.locked_directory import delete_unlocked, lock_directory

_PREFIX = "partrain-process-"
_NAME = re.compile(_PREFIX + r"[a-z0-9_]{8}")  # as `mkdtemp` makes it

# The address of a socket is a path of at most 103 bytes on macOS, 107 on Linux. So much is left for the parent of this
# directory if the name of the socket has up to 20 bytes.
MAX_PARENT_BYTES = 103 - 20 - len(_PREFIX) - 8 - 2
# Where the directory goes if that for temporary files has a longer path; Python 3.14 takes the same ones.
SHORT_PARENTS = ("/tmp", "/var/tmp", "/usr/tmp")

# The directory that this process, or the one that it was forked from, has made: its path, lock and process id.
_made: tuple[Path, int, int] | None = None


def process_directory() -> Path:
    """Return the directory of this process, whose path is short enough for a socket; it is made at the first call.

    Raises
    ------
    ResourceError
        It cannot be created.

    Side effects
    ------------
    The first call deletes the directories of processes of this user that were killed.
    """
    try:
        return _make_for(os.getpid())  # a fork makes one of its own
    except OSError as error:
        raise ResourceError(
            f"a directory for temporary files cannot be created: {error}; set TMPDIR to one that is writable"
        ) from error


def remove_process_directory() -> None:
    """Remove the directory of this process, if it has one; for a fork, which ends without Python's own clean-up."""
    if _made is not None:
        _remove(*_made)


@functools.cache
def _make_for(pid: int) -> Path:
    parent = _parent()
    delete_unlocked(Path(parent), _NAME)
    global _made
    while True:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        lock = lock_directory(path)
        if lock is not None and path.is_dir():
            atexit.register(_remove, path, lock, pid)
            _made = (path, lock, pid)
            return path
        # Another process took it for a left one, in the instant before it was locked, and deletes it.


def _parent() -> str:
    usual = tempfile.gettempdir()
    if len(os.fsencode(usual)) <= MAX_PARENT_BYTES:
        return usual
    for short in SHORT_PARENTS:
        if os.access(short, os.W_OK | os.X_OK):
            return short
    raise OSError(f"the path {usual} is longer than {MAX_PARENT_BYTES} bytes, too long for a socket")


def _remove(path: Path, lock: int, pid: int) -> None:
    if os.getpid() == pid:  # not in a fork
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)
