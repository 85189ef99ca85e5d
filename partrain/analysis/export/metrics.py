"""Metrics as a table (.csv), and as events that TensorBoard shows."""

from __future__ import annotations

import csv
import io
import math
import os
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from partrain.errors import MissingPackage, RunError
from partrain.store.metrics_log import read_metrics
from partrain.store.run_directory import RunDirectory

# What places a row, and is no metric.
_PLACES = ("step", "epoch", "examples", "time_s")


def metrics_csv(run: RunDirectory) -> tuple[bytes, int]:
    """Return the metrics as a CSV table: a row for each line, a column for each name, empty where there is none.

    Returns
    -------
    The table in UTF-8 with a header; and the number of rows below it.

    Raises
    ------
    RunError
        There are no metrics, or they are damaged.
    """
    rows = _rows(run)
    table = io.StringIO()
    columns = list(dict.fromkeys([*_PLACES, *(name for row in rows for name in row)]))
    writer = csv.DictWriter(table, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue().encode(), len(rows)


def metrics_events(run: RunDirectory) -> tuple[bytes, int]:
    """Return the metrics as a file of TensorBoard events, a scalar for each; `time_s` counts from the run's start.

    Returns
    -------
    The file; and the number of rows of metrics in it.

    Raises
    ------
    MissingPackage
        The package tensorboardX is not installed.
    RunError
        There are no metrics, or they are damaged.
    """
    try:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary
        from tensorboardX.record_writer import RecordWriter
    except ImportError as error:
        raise MissingPackage("tensorboardX", "export", "export to TensorBoard") from error
    rows = _rows(run)
    started = _started(run)
    # Its writer of records, and not its SummaryWriter: that one has a thread, and stamps events with the time of now.
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "events")
        writer = RecordWriter(path)
        writer.write(Event(wall_time=started, file_version="brain.Event:2").SerializeToString())
        for row in rows:
            scalars = [
                Summary.Value(tag=name, simple_value=value)
                for name, value in row.items()
                if name not in _PLACES and isinstance(value, int | float)
            ]
            wall_time = started + float(row.get("time_s", 0.0))
            event = Event(wall_time=wall_time, step=row["step"], summary=Summary(value=scalars))
            writer.write(event.SerializeToString())
        writer.close()
        return Path(path).read_bytes(), len(rows)


def events_name(run: RunDirectory) -> str:
    """Return the name of a run's file of events: the same each time, so that a later export replaces it.

    TensorBoard reads files with "tfevents" in their names, and takes all in a folder for one run.
    """
    return f"events.out.tfevents.{math.floor(_started(run))}.{run.path.resolve().name}"


def _rows(run: RunDirectory) -> list[dict[str, Any]]:
    try:
        rows = read_metrics(run.metrics_path)
    except OSError as error:
        raise RunError(f"{run.metrics_path}: cannot be read: {error.strerror}.") from error
    if not rows:
        raise RunError(f"{run.path}: has no metrics yet. Train it further, then export.")
    return rows


def _started(run: RunDirectory) -> float:
    """Return when the run began, in seconds since 1970."""
    try:
        return datetime.fromisoformat(run.read_run_json()["started"]).timestamp()
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        raise RunError(f"{run.run_json_path}: is damaged: it does not say when the run started.") from error
