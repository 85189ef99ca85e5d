"""A directory with a temporary name, until it contains what it needs and gets its own name."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from partrain.system.locked_directory import delete_unlocked, lock_directory

_PREFIX = ".partrain-new-"
_NAME = re.compile(re.escape(_PREFIX) + "[0-9a-f]{8}")


@contextlib.contextmanager
def new_directory(parent: Path) -> Iterator[Path]:
    """Create a directory, locked so that other processes leave it; the block renames it. Delete it after a failure."""
    while True:
        path = parent / f"{_PREFIX}{secrets.token_hex(4)}"
        try:
            os.mkdir(path)
            lock = lock_directory(path)
            if lock is None:  # another process deleted it in the instant before it was locked
                continue
            try:
                yield path
            finally:
                with contextlib.suppress(OSError):
                    os.close(lock)
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise
        return


def delete_abandoned(parent: Path) -> None:
    """Delete the new directories in `parent` whose processes were killed."""
    delete_unlocked(parent, _NAME)
