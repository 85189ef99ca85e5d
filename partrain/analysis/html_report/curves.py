"""The curves of runs, packed small for the page."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import math
from collections.abc import Sequence
from typing import Any

from partrain.analysis.logged_run import LoggedRun, Row, finite, number

SPLITS = ("train", "validation")
METRICS = ("loss", "accuracy")
# Beyond what a curve shows; each digit of 400,000 numbers costs a part of the page's weight.
SIGNIFICANT_DIGITS = 5


def curves(runs: Sequence[LoggedRun]) -> list[dict[str, Any]]:
    """Return the curves of each run by split: columns of equal length, `loss` and `accuracy`, and what they are over.

    What grows from row to row is given as differences, which are small numbers and often the same: `step`,
    `examples` and `milliseconds`. The epoch is the step divided by `steps_per_epoch`. A value that is missing or not
    finite is null, and a gap in the curve.
    """
    return [
        {"steps_per_epoch": _steps_per_epoch(run)} | {split: _columns(run, split) for split in SPLITS} for run in runs
    ]


def pack(data: bytes) -> str:
    """Return bytes as text that may stand in a page: compressed, in base64."""
    # Without the time of writing: equal pages for equal runs.
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode("ascii")


def pack_json(content: object) -> str:
    """Return plain values as `pack` does."""
    return pack(json.dumps(content, separators=(",", ":"), allow_nan=False).encode())


def _columns(run: LoggedRun, split: str) -> dict[str, list[Any]]:
    names = [f"{split}/{metric}" for metric in METRICS]
    rows = [row for row in run.rows if any(number(row.get(name)) is not None for name in names)]
    columns: dict[str, list[Any]] = {
        "step": _differences(rows, "step", 1),
        "examples": _differences(rows, "examples", 1),
        "milliseconds": _differences(rows, "time_s", 1000),
    }
    for metric, name in zip(METRICS, names, strict=True):
        columns[metric] = [_short(finite(row.get(name))) for row in rows]
    return columns


def _differences(rows: Sequence[Row], name: str, factor: int) -> list[int]:
    known = 0
    values = [0]
    for row in rows:
        value = finite(row.get(name))
        known = known if value is None else round(value * factor)
        values.append(known)
    return [after - before for before, after in itertools.pairwise(values)]


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def _steps_per_epoch(run: LoggedRun) -> float | None:
    for row in reversed(run.rows):
        step, epoch = finite(row.get("step")), finite(row.get("epoch"))
        if step and epoch and epoch > 0 and math.isfinite(step / epoch):
            return step / epoch
    return None
