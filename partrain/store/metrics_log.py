"""`metrics.jsonl`: a line of strict JSON for each logged step and each evaluation.

JSON has no NaN and no infinity, but a loss may be one: they are written as the strings "NaN", "Infinity"
and "-Infinity", which `read_metrics` turns back into floats (the mapping of Protocol Buffers; `float()` and
JavaScript's `Number()` take them too).

A line is whole when its line feed is there. A process that is killed, or a power failure, can tear the last
line; reading passes over it, and `cut_back` removes it before a resumed run appends.
"""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
from pathlib import Path
from typing import Any

from partrain.errors import RunError
from partrain.system.durable_files import replace_non_finite, sync_folder, write_durably

_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class MetricsLog:
    """The metrics of one run, open for appending until `close`.

    Append the rows of a step before its checkpoint is saved: `cut_back` keeps them.

    Parameters
    ----------
    path : the file; made when missing, else continued. The run's lock is held.

    Raises
    ------
    OSError : the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        sync_folder(path.parent)

    def append(self, row: dict[str, Any]) -> None:
        """Append one row, in one write; it is durable after the next `flush_durably`.

        Parameters
        ----------
        row : `step` and numbers by name; plain values, lists and dictionaries.

        Raises
        ------
        OSError : the disk is full, or an I/O error. No part of the row is left in the file.
        TypeError : a value is not a plain one.
        """
        plain = replace_non_finite(row, _name_of)
        line = json.dumps(plain, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        written = os.write(self._file, line)
        if written < len(line):
            # Half a line would spoil the next one as well.
            os.ftruncate(self._file, os.fstat(self._file).st_size - written)
            reason = f"wrote {written} of {len(line)} bytes, the disk may be full"
            raise OSError(errno.ENOSPC, reason, str(self._path))

    def flush_durably(self) -> None:
        """Make all rows so far survive a crash and a power failure; call it before each checkpoint's save.

        Raises
        ------
        OSError : an I/O error.
        """
        os.fsync(self._file)

    def close(self) -> None:
        """Close the file; no other method must be called any more."""
        os.close(self._file)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a metrics file, without a torn last line; none if there is no file.

    Raises
    ------
    RunError : a line before the last is damaged; names file and line.
    OSError : the file cannot be read.
    """
    rows, damaged = read_good_metrics(path)
    if damaged and damaged[0] < len(rows) + len(damaged):
        raise RunError(
            f"{path}: line {damaged[0]} is damaged. Delete the line to read the others; "
            "`partrain resume` sets it aside."
        )
    return rows


def read_good_metrics(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """Return the rows of a metrics file that can be read, and the numbers of the lines that cannot.

    A last line without line feed is in neither: it is torn, or being written at this moment.

    Raises
    ------
    OSError : the file cannot be read.
    """
    parsed = [_parse(line) for line in _whole_lines(path)]
    good = [row for row in parsed if row is not None]
    return good, [number for number, row in enumerate(parsed, 1) if row is None]


def cut_back(path: Path, step: int) -> int:
    """Cut a metrics file back to the rows of a checkpoint's step and before, for a run that resumes there.

    A torn last line is dropped. The other lines that go, and damaged ones wherever they stand, are kept
    beside the file in `metrics.cut-<n>.jsonl`, n counted up from 1. The bytes of what stays are not touched.

    Parameters
    ----------
    path : the file; if there is none, there is nothing to cut. No `MetricsLog` has it open.
    step : the checkpoint's step.

    Returns
    -------
    The number of lines that were set aside.

    Raises
    ------
    OSError : a file cannot be read or written; the metrics are as before.

    Side effects
    ------------
    Replaces the file durably, after the lines that go are durable beside it.
    """
    kept: list[bytes] = []
    cut: list[bytes] = []
    for line in _whole_lines(path):
        row = _parse(line)
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
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    return [line + b"\n" for line in lines[:-1]]  # after the last line feed: nothing, or a torn line


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        row = _floats_for_names(json.loads(line))
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
