"""Writes exported files: atomically, and never over a file that belongs to a run."""

from __future__ import annotations

import os
from pathlib import Path

from partrain.errors import ConfigError, ResourceError
from partrain.store.run_lookup import run_that_needs
from partrain.system.durable_files import make_folders, write_durably


def write_target(to: Path, data: bytes) -> Path:
    """Write an exported file; an existing file is replaced atomically.

    Parameters
    ----------
    to : the file. Links are followed. Missing directories are created.
    data : the content.

    Returns
    -------
    `to`.

    Raises
    ------
    ConfigError
        `to` is a directory, a device, or a file that belongs to a run.
    ResourceError
        The file cannot be written; an existing file is unchanged.
    """
    path = Path(os.path.realpath(to))  # renaming over a link would replace the link
    if os.path.isdir(path):
        raise ConfigError(f"--to {to}: is a directory; name a file")
    if os.path.exists(path) and not os.path.isfile(path):
        raise ConfigError(f"--to {to}: is not a regular file; name a file")
    owner = run_that_needs(path)
    if owner is not None:
        raise ConfigError(f"--to {to}: is a file of the run {owner} and cannot be replaced; choose another name")
    try:
        make_folders(path.parent)
        write_durably(path, data)
    except OSError as error:
        raise ResourceError(f"--to {to}: cannot be written: {error.strerror}") from error
    return to
