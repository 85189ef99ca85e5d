"""Checks and errors for files that cannot be read."""

from __future__ import annotations

import stat
from pathlib import Path

from partrain.errors import DataError


def require_file(path: Path) -> None:
    """Raise a DataError unless `path` is a regular file: opening a pipe, for example, would block."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    if not stat.S_ISREG(mode):
        kind = "a directory" if stat.S_ISDIR(mode) else "neither a file nor a link to a file"
        raise DataError(f"{path}: is {kind}, expected a file. Give the path of the file itself.")


def unreadable(path: Path, error: Exception) -> DataError:
    """Return the DataError for a file or directory that the system does not allow to read."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return DataError(f"{path}: cannot be read: {reason}. Check the path and its permissions.")
