"""`metrics.jsonl`: one line of strict JSON per logged step and per evaluation.

JSON has no NaN and no infinity, but a loss may be either. They are written as the strings "NaN", "Infinity" and
"-Infinity", and `read_metrics` turns them back into floats. Protocol Buffers use the same mapping; Python's `float()`
and JavaScript's `Number()` accept the strings.

A line is complete when it ends with a line feed. A killed process or a power failure can leave an incomplete last line;
reading skips it, and `cut_back` removes it before a resumed run appends.
"""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
from pathlib import Path
from typing import Any

from partrain.errors import ResourceError, RunError
from partrain.system.durable_files import WITHOUT_LINKS, replace_non_finite, sync_folder, write_durably
from partrain.system.memory_limits import read_whole
from partrain.system.open_files import is_at

_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class MetricsLog:
    """The metrics of one run, open for appending until `close`.

    Append the rows of a step before its checkpoint is saved, so that `cut_back` keeps them.

    Parameters
    ----------
    path : the file; created if it is missing, otherwise continued. The caller holds the run's lock.

    Raises
    ------
    OSError
        The file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | WITHOUT_LINKS, 0o666)
        sync_folder(path.parent)
        self._directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)

    def append(self, row: dict[str, Any]) -> None:
        """Append one row with one write; it is durable after the next `flush_durably`.

        Parameters
        ----------
        row : `step` and numbers by name; plain values, lists and dictionaries.

        Raises
        ------
        OSError
            The disk is full, or an I/O error. No part of the row stays in the file.
        TypeError
            A value is not plain.
        """
        plain = replace_non_finite(row, _name_of)
        line = json.dumps(plain, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        written = os.write(self._file, line)
        if written < len(line):
            # The next line would be appended to half a line.
            os.ftruncate(self._file, os.fstat(self._file).st_size - written)
            reason = f"wrote {written} of {len(line)} bytes, the disk may be full"
            raise OSError(errno.ENOSPC, reason, str(self._path))

    def reopen(self) -> bool:
        """Continue in another file if the open one was removed, or replaced as editors do. Return whether it was.

        The directory may be moved meanwhile.
        """
        name = Path(self._path.name)
        if is_at(name, self._file, directory=self._directory):
            return False
        try:
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | WITHOUT_LINKS
            file = os.open(name, flags, 0o666, dir_fd=self._directory)
        except OSError:  # its directory was removed as well
            return False
        os.close(self._file)
        self._file = file
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":
            os.write(file, b"\n")  # the next row would continue an incomplete last line
        return True

    def flush_durably(self) -> None:
        """Make all rows so far survive a crash and a power failure; call it before each checkpoint is saved.

        Raises
        ------
        OSError
            An I/O error.
        """
        os.fsync(self._file)

    def close(self) -> None:
        """Close the file; no other method must be called afterwards."""
        os.close(self._file)
        os.close(self._directory)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a metrics file, without an incomplete last line; none if there is no file.

    Raises
    ------
    RunError
        A line before the last is damaged; the message names file and line. Or the file does not fit into memory.
    OSError
        The file cannot be read.
    """
    rows, damaged = read_good_metrics(path)
    if damaged and damaged[0] < len(rows) + len(damaged):
        raise RunError(
            f"{path}: line {damaged[0]} is damaged. Delete the line to read the others; "
            "`partrain resume` moves it to another file."
        )
    return rows


def read_good_metrics(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """Return the rows of a metrics file that can be read, and the numbers of the lines that cannot.

    A last line without a line feed is in neither: it is incomplete, or being written at this moment.

    Raises
    ------
    OSError
        The file cannot be read.
    RunError
        It does not fit into memory.
    """
    parsed = [parse_row(line) for line in _whole_lines(path)]
    good = [row for row in parsed if row is not None]
    return good, [number for number, row in enumerate(parsed, 1) if row is None]


def cut_back(path: Path, step: int) -> int:
    """Remove the rows after a checkpoint's step from a metrics file, for a run that resumes at the checkpoint.

    Removed rows, and damaged lines anywhere in the file, are moved to `metrics.cut-<n>.jsonl` in the same directory; n
    counts up from 1. An incomplete last line is deleted. The bytes of the other lines do not change.

    Parameters
    ----------
    path : the file; it may be missing. No `MetricsLog` has it open.
    step : the checkpoint's step.

    Returns
    -------
    The number of lines that were moved.

    Raises
    ------
    OSError
        A file cannot be read or written; the metrics stay as they are.

    Side effects
    ------------
    Replaces the file durably, after the removed lines are durable in the other file.
    """
    kept: list[bytes] = []
    cut: list[bytes] = []
    for line in _whole_lines(path):
        row = parse_row(line)
        row_step = row.get("step") if row is not None else None
        (kept if isinstance(row_step, int) and row_step <= step else cut).append(line)
    if cut:
        names = (path.with_name(f"{path.stem}.cut-{n}{path.suffix}") for n in itertools.count(1))
        write_durably(next(name for name in names if not name.exists()), b"".join(cut))
    if path.exists() and path.stat().st_size != sum(len(line) for line in kept):
        write_durably(path, b"".join(kept))
    return len(cut)


def _whole_lines(path: Path) -> list[bytes]:
    try:
        # The lines, and the rows with their numbers.
        lines = read_whole(path, 10, "Check the file, or move it away.").split(b"\n")
    except FileNotFoundError:
        return []
    except ResourceError as error:
        raise RunError(str(error)) from error
    return [line + b"\n" for line in lines[:-1]]  # after the last line feed: nothing, or an incomplete line


def parse_row(line: bytes) -> dict[str, Any] | None:
    """Return a row; None for a line that `MetricsLog` does not write: it is damaged, or from another program."""
    try:
        row = _floats_for_names(json.loads(line))
        if b"\\u" in line or not line.isascii():
            json.dumps(row, ensure_ascii=False).encode()  # raises ValueError for surrogates, which are no characters
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _name_of(number: float) -> str:
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def _floats_for_names(value: Any) -> Any:
    if isinstance(value, str):
        return _NON_FINITE.get(value, value)
    if isinstance(value, dict):
        return {name: _floats_for_names(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_floats_for_names(item) for item in value]
    return value
