"""Lists the runs of a directory, for `partrain list`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from partrain.analysis.logged_run import LoggedRun, finite, nested, text
from partrain.analysis.privacy_record import usable_privacy
from partrain.analysis.run_filter import Filter, Value, select
from partrain.analysis.run_table import COLUMNS, Entry
from partrain.errors import RunError
from partrain.store.run_removal import complete_removals
from partrain.store.sweep_paths import is_sweep


def list_runs(
    runs_dir: Path, sort: str = "age", status: str | None = None, filters: Sequence[Filter] = ()
) -> list[Entry]:
    """Return an entry for each directory in `runs_dir`; those that are not readable runs have the status "broken".

    Parameters
    ----------
    runs_dir : the directory of runs, or a sweep. Files, sweeps, and names that start with a dot, are ignored.
    sort : a key of COLUMNS. Numbers are sorted in descending order, text in alphabetical order, age from new to old;
        entries without a value come last.
    status : list only runs with this status.
    filters : list only runs that meet these conditions, on columns and on keys of the configuration. `age` and `time`
        are in seconds; accuracies are fractions.

    Side effects
    ------------
    Completes removals of runs that were killed.

    Raises
    ------
    ConfigError
        A condition is on a key that no run has (see `select`).
    RunError
        The directory cannot be read.
    """
    complete_removals(runs_dir)
    try:
        names = [entry.name for entry in os.scandir(runs_dir) if entry.is_dir() and not entry.name.startswith(".")]
    except OSError as error:
        raise RunError(f"{runs_dir}: cannot be read: {error.strerror}. Choose it with --runs-dir.") from error
    names = [name for name in names if not is_sweep(runs_dir / name)]
    listed = [each for name in sorted(names) if (each := _open(runs_dir / name)) is not None]
    if filters:
        now = datetime.now(UTC)
        values = [_values(entry, run, now) for entry, run in listed]
        listed = [listed[index] for index in select(filters, values, COLUMNS)]
    entries = [entry for entry, _ in listed]
    field, descending = COLUMNS[sort]
    # Entries with equal values are sorted by name, which starts with the time.
    entries.sort(key=lambda entry: entry["name"], reverse=sort != "name")
    with_value = [entry for entry in entries if entry[field] is not None]
    with_value.sort(key=lambda entry: entry[field], reverse=descending)
    without = [entry for entry in entries if entry[field] is None]
    return [entry for entry in with_value + without if status in (None, entry["status"])]


def _open(path: Path) -> tuple[Entry, LoggedRun | None] | None:
    """Return the run at `path` and its entry; None if the run was removed in the meantime."""
    try:
        run = LoggedRun.open(path)
    except RunError as error:
        return (_broken(path, str(error)), None) if path.is_dir() else None
    return _entry(path, run), run


def _values(entry: Entry, run: LoggedRun | None, now: datetime) -> Mapping[str, Value]:
    """Return what the filters compare: the configuration, and the columns, which hide keys of the same name."""
    columns = {name: entry[field] for name, (field, _) in COLUMNS.items()}
    if run is not None and run.started is not None:
        columns["age"] = (now - run.started).total_seconds()
    return (run.config if run is not None else {}) | columns


def _entry(path: Path, run: LoggedRun) -> Entry:
    started, best = run.started, finite(nested(run.summary, "best", "validation/accuracy"))
    if best is None:
        best_row = run.best("validation/accuracy", highest=True)
        best = best_row[1] if best_row else None
    privacy = usable_privacy(run.summary.get("privacy"))
    return {
        "name": path.name,
        "path": str(path),
        "status": run.status,
        "config": run.config_name,
        "data": text(nested(run.record, "data", "name")),
        "data_source": text(nested(run.record, "data", "source")),
        "steps": _finite_total(run, "steps", "step"),
        "epochs": _finite_total(run, "epochs", "epoch"),
        "best_validation_accuracy": best,
        "test_accuracy": finite(nested(run.summary, "test", "accuracy")),
        "total_seconds": _finite_total(run, "total_seconds", "time_s"),
        "examples_per_second": _finite_total(run, "examples_per_second", "examples_per_s"),
        "workers": finite(run.record.get("workers")),
        "ranks": run.num_ranks,
        "bits": run.bits_version,
        "epsilon": privacy["epsilon"] if privacy and privacy["secret_noise"] else None,
        "privacy": privacy,
        "note": " ".join(run.user_notes[-1]["text"].split()) if run.user_notes else None,
        "started": started.isoformat(timespec="milliseconds") if started else None,
        "problem": "; ".join(run.notes) or None,
    }


def _finite_total(run: LoggedRun, key: str, metric: str) -> float | None:
    return finite(run.total(key, metric))


def _broken(path: Path, problem: str) -> Entry:
    fields: Entry = dict.fromkeys(field for field, _ in COLUMNS.values())
    named = {"name": path.name, "path": str(path), "status": "broken", "data_source": None, "ranks": None, "bits": None}
    return {"name": None, "path": None} | fields | named | {"privacy": None, "problem": problem}
