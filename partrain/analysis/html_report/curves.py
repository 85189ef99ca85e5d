"""The curves of runs, compressed into the page."""

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
# More than a curve can show; the page holds up to hundreds of thousands of numbers, and each digit adds to its size.
SIGNIFICANT_DIGITS = 5


def curves(runs: Sequence[LoggedRun]) -> list[dict[str, Any]]:
    """Return the curves of each run.

    Returns
    -------
    For each run `steps_per_epoch`, and for each split columns of equal length: `loss` and `accuracy`, in which a
    missing or non-finite value is null and leaves a gap in the curve; `step`, `examples` and `milliseconds` as
    differences from row to row, because small numbers compress well.
    """
    return [
        {"steps_per_epoch": _steps_per_epoch(run)} | {split: _columns(run, split) for split in SPLITS} for run in runs
    ]


def pack(data: bytes) -> str:
    """Return data as text for an HTML page: compressed with gzip, encoded in base64."""
    # Without a time stamp, so that equal runs give equal pages.
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode("ascii")


def pack_json(content: object) -> str:
    """Return plain values as JSON, packed by `pack`."""
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
