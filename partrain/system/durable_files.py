"""Files that survive a crash: at every moment the old content or the new is there, whole.

A file is written under a temporary name in its own folder, synced, renamed over the old one, and then the
folder is synced: a rename that the folder does not hold on the disk is undone by a power failure. The
temporary's name holds the process id, so that what a killed process left is recognised and swept away.

The file functions are called through the module `os`: a test replaces them there, and fails or kills at
each call in turn.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from partrain.system.fault_injection import kill_point

_TEMPORARY_NAME = re.compile(r"\..+\.(\d+)\.tmp")


def write_durably(path: Path, data: bytes) -> None:
    """Replace the content of `path` by `data`; when this returns, it survives a crash and a power failure.

    Parameters
    ----------
    path : the file; its folder exists. One thread of one process writes it at a time.
    data : the whole content.

    Raises
    ------
    OSError : the disk is full, an I/O error, a missing permission. The temporary file is gone; `path` is as
        before or, if only the last sync of the folder failed, new and perhaps not durable.

    Side effects
    ------------
    Writes `.<name>.<pid>.tmp` in the same folder for a moment.
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
    # O_TRUNC and not O_EXCL: in a container every run may have the same process id, and meet its
    # predecessor's leftover.
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable.

    Raises
    ------
    OSError : the folder cannot be opened or synced.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folders(folder: Path) -> None:
    """Make `folder` and the missing ones above it, durably; one that exists is left as it is.

    Raises
    ------
    OSError : a folder cannot be made, or something else has its name.
    """
    if folder.is_dir():
        return
    make_folders(folder.parent)
    with contextlib.suppress(FileExistsError):  # another process made it since; what is no folder fails below
        os.mkdir(folder)
    sync_folder(folder)
    sync_folder(folder.parent)


def sweep_temporaries(folder: Path) -> None:
    """Delete the temporary files that dead processes left in `folder`.

    Those of this process go too: call it when no write of its own is under way.

    Raises
    ------
    OSError : a leftover cannot be deleted.
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
    """Write `content` as `json_text` has it, by `write_durably`.

    Raises
    ------
    OSError : as `write_durably`.
    TypeError : something in `content` is no plain value, list or dictionary.
    """
    # A surrogate stands for a byte of a path that is not UTF-8; as an escape it comes back as it was.
    write_durably(path, (json_text(content) + "\n").encode("utf-8", errors="backslashreplace"))


def json_text(content: Any) -> str:
    """Return `content` as JSON that a person can read, keys in the order given.

    A list of plain values stands in one line, and so does each entry of a list: a matrix is a line for each row.
    JSON has no NaN and no infinity: a float that is not finite becomes null.

    Raises
    ------
    TypeError : something in `content` is no plain value, list or dictionary.
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
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def replace_non_finite(value: Any, replace: Callable[[float], object]) -> Any:
    """Return `value` with each NaN and infinity in it, at any depth, turned into what `replace` says."""
    if isinstance(value, float) and not math.isfinite(value):
        return replace(value)
    if isinstance(value, dict):
        return {key: replace_non_finite(item, replace) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [replace_non_finite(item, replace) for item in value]
    return value
