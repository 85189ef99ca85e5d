"""Writes files that survive a crash: at every moment, either the complete old or the complete new content exists.

A file is written under a temporary name in the same directory, synced, and renamed over the old file. Then the
directory is synced, because a power failure undoes a rename that has not reached the disk. The temporary name contains
the process id, so that the files of killed processes can be recognised and deleted.

All file functions are called through the module `os`, where tests replace them to fail or kill at each call in turn.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from partrain.system.fault_injection import kill_point

# All characters that are not printable are among these.
_UNPRINTABLE = re.compile(r"[^ -~]")

# The errors of fsync on a directory where the file system has no such operation: shares of VirtualBox, CIFS, some FUSE
# file systems.
CANNOT_SYNC = frozenset({errno.EINVAL, errno.EBADF, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})

# Flags for opening a file of a run: a link out of the run is an error, and a pipe does not block.
WITHOUT_LINKS = os.O_NOFOLLOW | os.O_NONBLOCK

_TEMPORARY_NAME = re.compile(r"\..+\.(\d+)\.tmp")


def write_durably(path: Path, data: bytes) -> None:
    """Replace the content of `path` by `data`; when this returns, it survives a crash and a power failure.

    Parameters
    ----------
    path : the file; its directory exists. Only one thread of one process writes it at a time.
    data : the complete content.

    Raises
    ------
    OSError : the disk is full, an I/O error, a missing permission. The temporary file has been deleted; `path` is
        unchanged or, if only the last sync of the directory failed, new and perhaps not durable.

    Side effects
    ------------
    Writes the temporary file `.<name>.<pid>.tmp` in the same directory.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _write_and_sync(temporary, data)
        kill_point("coordinator: before a file is replaced")
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    kill_point("coordinator: after a file was replaced")
    sync_folder(path.parent)


def _write_and_sync(path: Path, data: bytes) -> None:
    # O_TRUNC and not O_EXCL: in a container every run may have the same process id, and find the temporary file of its
    # predecessor.
    # O_NOFOLLOW: in a directory like /tmp, somebody else could foresee the name and put a link there.
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o666)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_folder(folder: Path) -> bool:
    """Sync a directory, so that the names in it survive a power failure.

    Returns
    -------
    Whether the file system can sync directories. If it cannot, a power failure may undo what was done last.

    Raises
    ------
    OSError : the directory cannot be opened, or it cannot be synced for another reason.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in CANNOT_SYNC:
            raise
        return False
    finally:
        os.close(fd)
    return True


def make_folders(folder: Path) -> None:
    """Create a directory and its missing parents, durably; existing directories are left unchanged.

    Raises
    ------
    OSError : a directory cannot be created, or its name is taken by something else.
    """
    if folder.is_dir():
        return
    make_folders(folder.parent)
    with contextlib.suppress(FileExistsError):  # another process has created it; a file of that name fails below
        os.mkdir(folder)
    sync_folder(folder)
    sync_folder(folder.parent)


def remedy_for(error: OSError) -> str:
    """Return what a user can do if a file or directory cannot be written, as the beginning of a sentence."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "Free disk space"
    return "Make it writable" if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) else "Check its file system"


def is_temporary(name: str) -> bool:
    """Return whether `write_durably` gives this name to a temporary file."""
    return _TEMPORARY_NAME.fullmatch(name) is not None


def sweep_temporaries(folder: Path) -> None:
    """Delete the temporary files of dead processes in a directory.

    It also deletes those of this process, so no write of this process may be in progress.

    Raises
    ------
    OSError : a file cannot be deleted.
    """
    for name in os.listdir(folder):
        match = _TEMPORARY_NAME.fullmatch(name)
        if match and _is_leftover(int(match[1])):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(folder / name)


def _is_leftover(pid: int) -> bool:
    if pid == os.getpid():
        return True
    try:
        os.kill(pid, 0)
    except PermissionError:
        return False
    except (ProcessLookupError, OverflowError):
        return True
    return False


def write_json_durably(path: Path, content: dict[str, Any]) -> None:
    """Write `content` as JSON (`json_text`), durably (`write_durably`).

    Raises
    ------
    OSError : as `write_durably`.
    TypeError : `content` contains something other than plain values, lists and dictionaries.
    """
    write_durably(path, (json_text(content) + "\n").encode())


def json_text(content: Any) -> str:
    """Return `content` as readable JSON, with keys in their given order.

    A list of plain values is one line, and so is each entry of a list: a matrix has one line per row. JSON has no NaN
    and no infinity, so a float that is not finite becomes null. Characters that are not printable are escaped.

    Raises
    ------
    TypeError : `content` contains something other than plain values, lists and dictionaries.
    """
    return _json_lines(replace_non_finite(content, lambda number: None), "")


def _json_lines(value: Any, indent: str) -> str:
    inner = indent + "  "
    if isinstance(value, dict) and value:
        entries = [f"{_json_line(key)}: {_json_lines(item, inner)}" for key, item in value.items()]
        brackets = "{}"
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        entries = [_json_line(item) for item in value]
        brackets = "[]"
    else:
        return _json_line(value)
    return f"{brackets[0]}\n{inner}" + f",\n{inner}".join(entries) + f"\n{indent}{brackets[1]}"


def _json_line(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    # Only strings contain characters that are not printable. Some of them would control the terminal.
    return text if text.isprintable() else _UNPRINTABLE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    return character if character.isprintable() else json.dumps(character)[1:-1]


def replace_non_finite(value: Any, replace: Callable[[float], object]) -> Any:
    """Return `value` with each NaN and infinity in it, at any depth, replaced by `replace(number)`."""
    if isinstance(value, float) and not math.isfinite(value):
        return replace(value)
    if isinstance(value, dict):
        return {key: replace_non_finite(item, replace) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [replace_non_finite(item, replace) for item in value]
    return value
