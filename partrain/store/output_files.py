"""Writes files where the user says: atomically, and never over a run's files, a device or a directory."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from partrain.errors import ConfigError, ResourceError
from partrain.store.run_lookup import run_that_needs
from partrain.system.durable_files import make_folders, write_durably

# The kernel follows as many links in one path.
MAX_LINKS = 40


def require_output_file(to: Path, option: str) -> Path:
    """Check the path of a file to write: it may be new, or a file that may be replaced.

    Parameters
    ----------
    to : the path, as the user gives it.
    option : the option that gives it, for messages.

    Returns
    -------
    The file, with all links resolved: renaming over a link would replace the link.

    Raises
    ------
    ConfigError
        `to` is, or links to, a directory, a device, a pipe, a socket, or a file of a run.
    """
    if os.path.isdir(to):
        raise ConfigError(f"{option} {to}: is a directory; name a file")
    return require_output(to, option)


def require_output(to: Path, option: str) -> Path:
    """Check the path of a file or directory to write; as `require_output_file`, but a directory may exist."""
    try:
        mode = os.stat(to).st_mode
    except OSError:  # it is new, or writing it will tell why it cannot be written
        mode = stat.S_IFREG
    places = list(_through_links(Path(os.path.abspath(to))))
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) or any(map(_is_open_file, places)):
        raise ConfigError(f"{option} {to}: is not a regular file; name a file")
    real = Path(os.path.realpath(to))
    for path in (*places, real):
        owner = run_that_needs(path)
        if owner is not None:
            raise ConfigError(f"{option} {to}: is a file of the run {owner} and cannot be replaced; name another file")
    return real


def _is_open_file(path: Path) -> bool:
    """Return whether a path stands for an open file of a process, as /dev/stdout does on Linux."""
    return path.parent.name == "fd" and path.is_relative_to("/proc")


def _through_links(path: Path) -> Iterator[Path]:
    """Yield the path, and what it becomes as its links are followed one after the other.

    A run's checkpoints may be a link to another disk: then the last of these paths does not lead through the run.
    """
    for _ in range(MAX_LINKS):
        yield path
        link = next((place for place in (*reversed(path.parents), path) if os.path.islink(place)), None)
        if link is None:
            return
        path = Path(os.path.normpath(link.parent / os.readlink(link) / path.relative_to(link)))


def write_output_file(to: Path, data: bytes, option: str, *, make_parents: bool = False) -> None:
    """Write a file where the user says; an existing file is replaced atomically.

    Parameters
    ----------
    to, option : as for `require_output_file`.
    data : the content.
    make_parents : whether missing directories are created.

    Raises
    ------
    ConfigError
        As `require_output_file`.
    ResourceError
        The file cannot be written; an existing file is unchanged.
    """
    path = require_output_file(to, option)
    try:
        if make_parents:
            make_folders(path.parent)
        write_durably(path, data)
    except OSError as error:
        raise ResourceError(f"{option} {to}: cannot be written: {error.strerror}") from error
