"""Directories that exist only as long as a process needs them, which it shows by a lock on them.

The kernel releases the lock when the process ends, however it ends. So a directory without a lock is one that a killed
process left, and another process may delete it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path


def lock_directory(path: Path, *, needs_locks: bool = False) -> int | None:
    """Lock a directory, and return the descriptor that holds the lock; None if another process holds it or deleted it.

    On a file system without locks this succeeds unless `needs_locks`. That also means that a directory which cannot be
    opened is no error.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        if needs_locks or isinstance(error, FileNotFoundError):
            return None
        os.rmdir(path)  # it is new and empty; trying again would fail again
        raise
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if isinstance(error, BlockingIOError) or needs_locks:
            os.close(descriptor)
            return None
    return descriptor


@contextlib.contextmanager
def locked_against_deletion(path: Path) -> Iterator[None]:
    """Hold the lock of an existing directory, which may be renamed within the block, if it can be locked."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        yield
        return
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def delete_unlocked(parent: Path, name: re.Pattern[str]) -> None:
    """Delete the directories of processes of this user that have ended.

    Parameters
    ----------
    parent : contains the directories. If it cannot be read, nothing is deleted.
    name : matches the complete name of each.
    """
    for path in _directories_of_this_user(parent, name):
        lock = lock_directory(path, needs_locks=True)
        if lock is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)


def _directories_of_this_user(parent: Path, name: re.Pattern[str]) -> Iterator[Path]:
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if name.fullmatch(entry.name):
                with contextlib.suppress(OSError):  # it was deleted meanwhile
                    if entry.stat(follow_symlinks=False).st_uid == os.geteuid():
                        yield Path(entry.path)
