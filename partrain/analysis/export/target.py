"""Where an export goes: a file that appears whole, and replaces nothing that a run needs."""

from __future__ import annotations

import os
from pathlib import Path

from partrain.errors import ConfigError, ResourceError
from partrain.store.run_lookup import run_that_needs
from partrain.system.durable_files import make_folders, write_durably


def write_target(to: Path, data: bytes) -> Path:
    """Write an exported file, in place of one that is there already.

    Parameters
    ----------
    to : the file. A link is followed. Folders that are missing are made.
    data : the whole content.

    Returns
    -------
    `to`.

    Raises
    ------
    ConfigError
        It is a folder, a device, or a file that a run consists of.
    ResourceError
        It cannot be written; what was there stays.
    """
    path = Path(os.path.realpath(to))  # renaming over a link would replace the link
    if os.path.isdir(path):
        raise ConfigError(f"--to {to}: is a folder; name the file to write in it")
    if os.path.exists(path) and not os.path.isfile(path):
        raise ConfigError(f"--to {to}: is no ordinary file; name a file")
    owner = run_that_needs(path)
    if owner is not None:
        raise ConfigError(f"--to {to}: is a file of the run {owner}, and is not replaced; choose another name")
    try:
        make_folders(path.parent)
        write_durably(path, data)
    except OSError as error:
        raise ResourceError(f"--to {to}: cannot be written: {error.strerror}") from error
    return to
