"""Metrics as a CSV table, and as TensorBoard events."""

from __future__ import annotations

import contextlib
import csv
import io
import math
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from partrain.analysis.export.tensorboard_events import LOCATIONS, EventsFile, require_tensorboard
from partrain.analysis.logged_run import is_step
from partrain.errors import RunError
from partrain.store.metrics_log import read_metrics
from partrain.store.run_directory import RunDirectory
from partrain.system.process_directory import process_directory
from partrain.system.terminal_text import printable

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
    columns = list(dict.fromkeys([*LOCATIONS, *(name for row in rows for name in row)]))
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
    require_tensorboard("export to TensorBoard")
    rows = _rows(run)
    started = _started(run)
    with tempfile.TemporaryDirectory(dir=process_directory()) as folder:
        path = Path(folder, "events")
        with contextlib.closing(EventsFile(path, started)) as events:
            for row in rows:
                events.write_row(row)
        return path.read_bytes(), len(rows)


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
