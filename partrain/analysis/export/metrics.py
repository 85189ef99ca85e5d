"""Metrics as a CSV table, and as TensorBoard events."""

from __future__ import annotations

import csv
import io
import math
import os
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from partrain.analysis.logged_run import finite, is_step, number
from partrain.errors import MissingPackage, RunError
from partrain.store.metrics_log import read_metrics
from partrain.store.run_directory import RunDirectory
from partrain.system.process_directory import process_directory
from partrain.system.terminal_text import printable

# Columns that locate a row; they are not metrics.
_LOCATIONS = ("step", "epoch", "examples", "time_s")
# Spreadsheets may take a cell that begins like this for a formula.
_FORMULA_STARTS = ("=", "+", "-", "@")


def metrics_csv(run: RunDirectory) -> tuple[bytes, int]:
    """Return the metrics as a CSV table with one row per line of metrics.jsonl and one column per name.

    Returns
    -------
    The table in UTF-8, with a header; missing values are empty. And the number of its rows.

    Raises
    ------
    RunError
        There are no metrics, or they are damaged.
    """
    rows = _rows(run)
    table = io.StringIO()
    columns = list(dict.fromkeys([*_LOCATIONS, *(name for row in rows for name in row)]))
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(map(_cell, columns))
    writer.writerows([_cell(row.get(name, "")) for name in columns] for row in rows)
    return table.getvalue().encode(), len(rows)


def metrics_events(run: RunDirectory) -> tuple[bytes, int]:
    """Return the metrics as a file of TensorBoard events, with one scalar per metric.

    Returns
    -------
    The content of the file, and the number of rows of metrics in it. Times are the run's start plus `time_s`.

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
    # Not SummaryWriter, which starts a thread and stamps events with the current time.
    with tempfile.TemporaryDirectory(dir=process_directory()) as folder:
        path = os.path.join(folder, "events")
        writer = RecordWriter(path)
        writer.write(Event(wall_time=started, file_version="brain.Event:2").SerializeToString())
        for row in rows:
            scalars = [
                Summary.Value(tag=name, simple_value=value)
                for name, value in row.items()
                if name not in _LOCATIONS and number(value) is not None
            ]
            wall_time = started + (finite(row.get("time_s")) or 0.0)
            event = Event(wall_time=wall_time, step=row["step"], summary=Summary(value=scalars))
            writer.write(event.SerializeToString())
        writer.close()
        return Path(path).read_bytes(), len(rows)


def events_name(run: RunDirectory) -> str:
    """Return the name of a run's event file. It is always the same, so that a later export replaces the file.

    TensorBoard reads files with "tfevents" in their names, and treats all files in a directory as one run.
    """
    return f"events.out.tfevents.{math.floor(_started(run))}.{run.path.resolve().name}"


def _cell(value: object) -> object:
    """Return the value for a cell: text that a spreadsheet would take for a formula gets a quote in front.

    As OWASP recommends (CSV Injection, owasp.org). Text that is a number stays as it is. Characters that are not
    printable are replaced: a carriage return could begin a row.
    """
    if not isinstance(value, str):
        return value
    text = printable(value)
    if not text.startswith(_FORMULA_STARTS):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def _rows(run: RunDirectory) -> list[dict[str, Any]]:
    try:
        rows = read_metrics(run.metrics_path)
    except OSError as error:
        raise RunError(f"{run.metrics_path}: cannot be read: {error.strerror}.") from error
    if not rows:
        raise RunError(f"{run.path}: has no metrics yet. Train it further, then export.")
    for row in rows:
        if not is_step(row.get("step")):
            shown = printable(repr(row.get("step"))[:40])
            raise RunError(f"{run.metrics_path}: a line has the step {shown}, not a whole number. Delete that line.")
    return rows


def _started(run: RunDirectory) -> float:
    """Return the start of the run in seconds since 1970."""
    try:
        return datetime.fromisoformat(run.read_run_json()["started"]).timestamp()
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        raise RunError(f"{run.run_json_path}: is damaged: the start time of the run is missing.") from error
