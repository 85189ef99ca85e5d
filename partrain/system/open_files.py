"""Open files and directories whose names may change: whether they are still at a path, and where they are otherwise.

An open descriptor stays valid when its file is moved or removed. Only certain knowledge counts: if a path cannot be
looked up, as when a network file system does not answer, the file is assumed to be there.
"""

from __future__ import annotations

import os
from pathlib import Path


def is_at(path: Path, descriptor: int, *, directory: int | None = None) -> bool:
    """Return whether the open file, and not another one or none, is at `path`.

    Parameters
    ----------
    path : relative to `directory` if that is given.
    descriptor : of the open file.
    directory : the descriptor of an open directory.
    """
    try:
        return os.path.samestat(os.stat(path, dir_fd=directory), os.fstat(descriptor))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True


def find_path(descriptor: int) -> Path | None:
    """Return the absolute path of an open file or directory; None if it was removed, or the system cannot tell."""
    try:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        return path if os.path.samestat(os.stat(path), os.fstat(descriptor)) else None
    except OSError:
        return None
