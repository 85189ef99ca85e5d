"""The curves of runs, compressed into the page."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from partrain.analysis.logged_run import LoggedRun, Row, finite, number

# The metrics by name, in groups that are logged together.
METRICS: Mapping[str, Mapping[str, str]] = {
    "train": {
        "loss": "train/loss",
        "accuracy": "train/accuracy",
        "gradient_norm": "train/gradient_norm/mean",
        "learning_rate": "lr",
        "examples_per_second": "examples_per_s",
    },
    "validation": {"loss": "validation/loss", "accuracy": "validation/accuracy"},
    "privacy": {"epsilon": "privacy/epsilon"},
}
# More than a curve can show; the page holds up to hundreds of thousands of numbers, and each digit adds to its size.
SIGNIFICANT_DIGITS = 5


def curves(runs: Sequence[LoggedRun]) -> list[dict[str, Any]]:
    """Return the curves of each run.

    Returns
    -------
    For each run `steps_per_epoch`, and for each group of `METRICS` columns of equal length: the metrics that the run
    has, in which a missing or non-finite value is null and leaves a gap in the curve; `step`, `examples` and
    `milliseconds` as differences from row to row, because small numbers compress well.
    """
    return [
        {"steps_per_epoch": _steps_per_epoch(run)} | {group: _columns(run, METRICS[group]) for group in METRICS}
        for run in runs
    ]


def pack(data: bytes) -> str:
    """Return data as text for an HTML page: compressed with gzip, encoded in base64."""
    # Without a time stamp, so that equal runs give equal pages.
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode("ascii")


def pack_json(content: object) -> str:
    """Return plain values as JSON, packed by `pack`."""
    return pack(json.dumps(content, separators=(",", ":"), allow_nan=False).encode())


def _columns(run: LoggedRun, metrics: Mapping[str, str]) -> dict[str, list[Any]]:
    rows = [row for row in run.rows if any(number(row.get(name)) is not None for name in metrics.values())]
    columns: dict[str, list[Any]] = {
        "step": _differences(rows, "step", 1),
        "examples": _differences(rows, "examples", 1),
        "milliseconds": _differences(rows, "time_s", 1000),
    }
    for metric, name in metrics.items():
        values = [_short(finite(row.get(name))) for row in rows]
        if any(value is not None for value in values):
            columns[metric] = values
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
