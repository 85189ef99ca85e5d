"""The directories for data that partrain can download or generate again, and for compiled kernels."""

from __future__ import annotations

import os
from pathlib import Path

from partrain.system.process_directory import process_directory


def user_cache_directory() -> Path:
    """Return partrain's cache directory: `$XDG_CACHE_HOME/partrain`, or `~/.cache/partrain`.

    If the home directory is unknown, it is a directory that lasts only as long as this process.
    """
    base = _lasting_base()
    return process_directory() / "cache" if base is None else base / "partrain"


def require_lasting_cache() -> None:
    """Check that the cache directory lasts longer than this process.

    Raises
    ------
    FileNotFoundError
        The home directory is unknown.
    """
    if _lasting_base() is None:
        raise FileNotFoundError(f"the home directory of user {os.getuid()} is unknown; set HOME or XDG_CACHE_HOME")


def _lasting_base() -> Path | None:
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base)
    default = os.path.expanduser("~/.cache")  # unchanged if HOME is not set and no user has this id
    return None if default.startswith("~") else Path(default)


def data_directory() -> Path:
    """Return the directory with one subdirectory per data set: `$PARTRAIN_DATA_DIR`, or the cache directory."""
    directory = os.environ.get("PARTRAIN_DATA_DIR")
    return Path(os.path.expanduser(directory)) if directory else user_cache_directory()
