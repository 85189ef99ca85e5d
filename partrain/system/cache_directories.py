"""The directories for data that partrain can download or generate again, and for compiled kernels."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache_directory() -> Path:
    """Return partrain's cache directory: `$XDG_CACHE_HOME/partrain`, or `~/.cache/partrain`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "partrain"


def data_directory() -> Path:
    """Return the directory with one subdirectory per data set: `$PARTRAIN_DATA_DIR`, or the cache directory."""
    directory = os.environ.get("PARTRAIN_DATA_DIR")
    return Path(directory).expanduser() if directory else user_cache_directory()
