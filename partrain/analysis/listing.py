"""The runs in a folder, an entry each: what `partrain list` shows."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from partrain.analysis.logged_run import LoggedRun, finite, part
from partrain.analysis.privacy_text import usable_privacy
from partrain.errors import RunError
from partrain.system.terminal_text import printable, table

STATUSES = ("running", "completed", "interrupted", "failed", "broken")

Entry = dict[str, Any]

# The columns: what `--sort` calls them, the entry's field, and whether sorting puts large values first.
COLUMNS: Mapping[str, tuple[str, bool]] = {
    "name": ("name", False),
    "status": ("status", False),
    "config": ("config", False),
    "steps": ("steps", True),
    "epochs": ("epochs", True),
    "validation": ("best_validation_accuracy", True),
    "test": ("test_accuracy", True),
    "time": ("total_seconds", True),
    "examples/s": ("examples_per_second", True),
    "workers": ("workers", True),
    "epsilon": ("epsilon", False),
    "age": ("started", True),
}


def list_runs(runs_dir: Path, sort: str = "age", status: str | None = None) -> list[Entry]:
    """Return an entry for each directory in `runs_dir`, whatever state it is in.

    Parameters
    ----------
    runs_dir : the folder of runs. Files, and what has a dot at the start of its name, are passed over.
    sort : a key of COLUMNS. Numbers: the largest first; words: in alphabetical order; age: the newest first.
        What has no value comes last.
    status : only runs of this status.

    Raises
    ------
    RunError : the folder cannot be read.
    """
    try:
        names = [entry.name for entry in os.scandir(runs_dir) if entry.is_dir() and not entry.name.startswith(".")]
    except OSError as error:
        raise RunError(f"{runs_dir}: cannot be read: {error.strerror}. Name the folder by --runs-dir.") from error
    entries = [entry for name in sorted(names) if (entry := _entry(runs_dir / name)) is not None]
    field, descending = COLUMNS[sort]
    # By name where equal; a name begins with the time.
    entries.sort(key=lambda entry: entry["name"], reverse=sort != "name")
    with_value = [entry for entry in entries if entry[field] is not None]
    with_value.sort(key=lambda entry: entry[field], reverse=descending)
    without = [entry for entry in entries if entry[field] is None]
    return [entry for entry in with_value + without if status in (None, entry["status"])]


def describe(entries: Sequence[Entry], now: datetime) -> str:
    """Return the entries as a table, and below it what is wrong with the broken ones.

    Parameters
    ----------
    entries : as `list_runs` returns them.
    now : what ages are counted from; with a time zone.
    """
    # Most folders have no private run.
    cells = {name: show for name, show in _CELLS.items() if name != "epsilon" or any(e["privacy"] for e in entries)}
    rows = [tuple(show(entry, now) for show in cells.values()) for entry in entries]
    causes = [f"{printable(entry['name'])}: {printable(entry['problem'])}" for entry in entries if entry["problem"]]
    return "\n".join([*table(tuple(cells), rows, num_words=3), *([""] if causes else []), *causes])


def _entry(path: Path) -> Entry | None:
    """Return what is known of the run at `path`; None if it has just been removed."""
    try:
        run = LoggedRun.open(path)
    except RunError as error:
        return _broken(path, str(error)) if path.is_dir() else None
    started, best = run.started, finite(part(run.summary, "best", "validation/accuracy"))
    if best is None:
        best_row = run.best("validation/accuracy", highest=True)
        best = best_row[1] if best_row else None
    privacy = usable_privacy(run.summary.get("privacy"))
    return {
        "name": path.name,
        "path": str(path),
        "status": run.status,
        "config": run.config_name,
        "steps": _finite_total(run, "steps", "step"),
        "epochs": _finite_total(run, "epochs", "epoch"),
        "best_validation_accuracy": best,
        "test_accuracy": finite(part(run.summary, "test", "accuracy")),
        "total_seconds": _finite_total(run, "total_seconds", "time_s"),
        "examples_per_second": _finite_total(run, "examples_per_second", "examples_per_s"),
        "workers": finite(run.record.get("workers")),
        "ranks": run.num_ranks,
        "epsilon": privacy["epsilon"] if privacy and privacy["secret_noise"] else None,
        "privacy": privacy,
        "started": started.astimezone(UTC).isoformat(timespec="milliseconds") if started else None,
        "problem": "; ".join(run.notes) or None,
    }


def _finite_total(run: LoggedRun, key: str, metric: str) -> float | None:
    return finite(run.total(key, metric))


def _broken(path: Path, problem: str) -> Entry:
    fields: Entry = dict.fromkeys(field for field, _ in COLUMNS.values())
    named = {"name": path.name, "path": str(path), "status": "broken", "ranks": None}
    return {"name": None, "path": None} | fields | named | {"privacy": None, "problem": problem}


def _number(field: str, layout: str) -> Callable[[Entry, datetime], str]:
    return lambda entry, now: "-" if entry[field] is None else format(entry[field], layout)


def _word(field: str) -> Callable[[Entry, datetime], str]:
    return lambda entry, now: printable(entry[field] or "-")


def _epsilon(entry: Entry, now: datetime) -> str:
    if entry["privacy"] is None:
        return "-"
    return "not private" if entry["epsilon"] is None else f"{entry['epsilon']:.3g} at {entry['privacy']['delta']:g}"


def _workers(entry: Entry, now: datetime) -> str:
    number = _number("workers", ".0f")(entry, now)
    return number if entry["ranks"] is None else f"{number} on {entry['ranks']} rank{'s' * (entry['ranks'] > 1)}"


def _time(entry: Entry, now: datetime) -> str:
    return "-" if entry["total_seconds"] is None else duration(entry["total_seconds"])


def _age(entry: Entry, now: datetime) -> str:
    if entry["started"] is None:
        return "-"
    return duration(max(0.0, (now - datetime.fromisoformat(entry["started"])).total_seconds()))


def duration(seconds: float) -> str:
    """Return a time for people, in the largest unit of which there are two: 95 s, 12 min, 3.4 h."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}" if seconds < 10 * size else f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


_CELLS: Mapping[str, Callable[[Entry, datetime], str]] = {
    "name": _word("name"),
    "status": _word("status"),
    "config": _word("config"),
    "steps": _number("steps", ",.0f"),
    "epochs": _number("epochs", ".2f"),
    "validation": _number("best_validation_accuracy", ".2%"),
    "test": _number("test_accuracy", ".2%"),
    "time": _time,
    "examples/s": _number("examples_per_second", ",.0f"),
    "workers": _workers,
    "epsilon": _epsilon,
    "age": _age,
}
