"""Where partrain keeps what it can make again: downloaded data and compiled kernels."""

from __future__ import annotations

import os
from pathlib import Path


def cache_home() -> Path:
    """Return partrain's folder in the user's cache: `$XDG_CACHE_HOME/partrain`, or `~/.cache/partrain`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "partrain"


def data_home() -> Path:
    """Return the folder that holds one folder a data set: `$PARTRAIN_DATA_DIR`, or the cache."""
    folder = os.environ.get("PARTRAIN_DATA_DIR")
    return Path(folder).expanduser() if folder else cache_home()
