"""Walks a directory of images without opening a file, and without leaving the directory through a symbolic link."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from partrain.data.file_access import unreadable
from partrain.data.image_decoding import SUFFIXES
from partrain.errors import DataError
from partrain.system.terminal_text import printable

# A message names the files of this many suffixes.
MAX_LISTED = 8


def is_image(name: str) -> bool:
    """Return whether a file is an image by its name."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def entries_of(directory: Path) -> list[os.DirEntry[str]]:
    """Return the entries of a directory, sorted by name. Hidden ones are left out.

    Raises
    ------
    DataError
        The directory cannot be read.
    """
    try:
        with os.scandir(directory) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except (OSError, ValueError) as error:
        raise unreadable(directory, error) from None


def subdirectories(directory: Path) -> list[Path]:
    """Return the subdirectories, sorted by name.

    Raises
    ------
    DataError
        The directory cannot be read, or contains a symbolic link to a directory.
    """
    found = []
    for entry in entries_of(directory):
        if entry.is_symlink() and entry.is_dir():
            _require_inside(Path(entry.path), directory.resolve())
        if entry.is_dir():
            found.append(Path(entry.path))
    return found


def walk(directory: Path, root: Path, ignored: Counter[str]) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the image files at any depth below a directory, and count the other files.

    Parameters
    ----------
    directory, root : the directory, and the one that symbolic links must not leave; `root` is resolved.
    ignored : the number of other files by their suffix, see `suffix_of`; counted up.

    Raises
    ------
    DataError
        A directory or file cannot be read, or a symbolic link leads out of `root`.
    """
    for entry in entries_of(directory):
        path, named_like_image = Path(entry.path), is_image(entry.name)
        if entry.is_symlink() and (named_like_image or entry.is_dir()):
            _require_inside(path, root)
        if entry.is_dir(follow_symlinks=False):
            yield from walk(path, root, ignored)
        elif named_like_image:
            try:
                status = path.stat()
            except OSError as error:
                raise unreadable(path, error) from None
            if not stat.S_ISREG(status.st_mode):
                raise DataError(f"{printable(str(path))}: is named like an image, but is not a file. Remove it.")
            yield path, status
        else:
            ignored[suffix_of(entry.name)] += 1


def suffix_of(name: str) -> str:
    """Return the suffix of a file's name in lower case, for a message."""
    return printable(os.path.splitext(name)[1].lower()) or "without a suffix"


def describe_ignored(ignored: Mapping[str, int]) -> str:
    """Return the numbers of files that are no images as text: "7 files are not used: 4 .heic, 3 .txt"."""
    num_files = sum(ignored.values())
    by_count = sorted(ignored.items(), key=lambda item: (-item[1], item[0]))
    listed = [f"{count:,} {suffix}" for suffix, count in by_count[:MAX_LISTED]]
    num_more = len(ignored) - MAX_LISTED
    listed += [f"and those of {num_more:,} more suffixes"] if num_more > 0 else []
    return f"{num_files:,} {'file is' if num_files == 1 else 'files are'} not used: {', '.join(listed)}"


def _require_inside(path: Path, root: Path) -> None:
    """Check that a symbolic link leads to a file in the directory of images."""
    target = Path(os.path.realpath(path))
    if not target.is_relative_to(root):
        raise DataError(
            f"{printable(str(path))}: is a symbolic link out of {root}, to {printable(str(target))}. Such links are "
            "not followed: put the file itself there."
        )
    if not target.exists():
        raise DataError(f"{printable(str(path))}: is a symbolic link to nothing. Remove it.")
    if target.is_dir():
        raise DataError(
            f"{printable(str(path))}: is a symbolic link to a directory, whose images would count twice. Remove it, "
            "or replace it by a directory."
        )
