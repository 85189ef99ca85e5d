"""The directory that is watched: where it is now."""

from __future__ import annotations

import os
from pathlib import Path

from partrain.errors import RunError
from partrain.system.open_files import find_path, is_at


class WatchedDirectory:
    """A directory that may be moved or removed while it is watched; `close` it at the end.

    Parameters
    ----------
    path : the directory.

    Raises
    ------
    RunError
        It cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise RunError(f"{path}: cannot be read: {error.strerror}.") from error

    def find(self) -> Path:
        """Return where the directory is now.

        Raises
        ------
        RunError
            It was removed, or moved to where this process cannot find it.
        """
        if not is_at(self._path, self._descriptor):
            found = find_path(self._descriptor)
            if found is None:
                raise RunError(
                    f"{self._path}: this directory is gone: it was removed, or moved to another file system."
                )
            self._path = found
        return self._path

    def close(self) -> None:
        """Stop watching."""
        os.close(self._descriptor)
