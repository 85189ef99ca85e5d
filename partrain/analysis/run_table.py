"""The table of runs that `partrain list` prints: its columns, what they sort by, and how their cells read."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from partrain.system.terminal_text import cut, num_columns, printable, table

STATUSES = ("running", "completed", "interrupted", "failed", "broken")

Entry = dict[str, Any]

# By column name: the entry's field, and whether sorting puts large values first.
COLUMNS: Mapping[str, tuple[str, bool]] = {
    "name": ("name", False),
    "status": ("status", False),
    "config": ("config", False),
    "data": ("data", False),
    "steps": ("steps", True),
    "epochs": ("epochs", True),
    "validation": ("best_validation_accuracy", True),
    "test": ("test_accuracy", True),
    "time": ("total_seconds", True),
    "examples/s": ("examples_per_second", True),
    "workers": ("workers", True),
    "epsilon": ("epsilon", False),
    "age": ("started", True),
    "note": ("note", False),
}

# Columns that a narrow terminal does not show, in the order in which they are left out.
OPTIONAL_COLUMNS = ("config", "examples/s", "epochs", "workers", "time", "steps", "age")
# Columns whose cells are cut, in this order, and the widths that they keep: before columns are left out, and then.
_CUT_FIRST = {"note": 12}
_CUT_THEN = {"data": 8, "name": 15}
# Data sets of the user's own files: the file or directory tells more than the kind.
_OWN_DATA = ("idx", "arrays", "folder")


def describe(entries: Sequence[Entry], now: datetime, *, width: int | None = None) -> str:
    """Return the entries as a table, followed by the problems of broken runs.

    Parameters
    ----------
    entries : as `list_runs` returns them.
    now : the time to compute ages from; timezone-aware.
    width : columns of the terminal. In a table that is wider, notes are cut; then some of OPTIONAL_COLUMNS are left
        out; then names are cut.
    """
    # Most directories contain no private run, and no run with a note.
    filled = {"epsilon": "privacy", "note": "note"}
    names = [name for name in _CELLS if name not in filled or any(entry[filled[name]] for entry in entries)]
    limits: dict[str, int] = {}
    lines = _lines(names, entries, now, limits)

    def cut_to_fit(leasts: Mapping[str, int]) -> None:
        nonlocal lines
        for name, least in leasts.items():
            if name in names and (excess := _excess(lines, width)) > 0:
                widest = max(num_columns(_CELLS[name](entry, now)) for entry in entries)
                limits[name] = max(least, widest - excess)
                lines = _lines(names, entries, now, limits)

    cut_to_fit(_CUT_FIRST)
    for name in OPTIONAL_COLUMNS:
        if _excess(lines, width) > 0:
            names.remove(name)
            lines = _lines(names, entries, now, limits)
    cut_to_fit(_CUT_THEN)
    problems = [f"{printable(entry['name'])}: {printable(entry['problem'])}" for entry in entries if entry["problem"]]
    return "\n".join([*lines, *([""] if problems else []), *problems])


def _excess(lines: Sequence[str], width: int | None) -> int:
    """Return by how many columns the lines are wider than the terminal."""
    return 0 if width is None else max(map(num_columns, lines)) - width


def _lines(names: Sequence[str], entries: Sequence[Entry], now: datetime, limits: Mapping[str, int]) -> list[str]:
    words = [index for index, name in enumerate(names) if name in ("name", "status", "config", "data", "note")]
    rows = [[cut(_CELLS[name](entry, now), limits.get(name)) for name in names] for entry in entries]
    return table(names, rows, words)


def _number(field: str, layout: str) -> Callable[[Entry, datetime], str]:
    return lambda entry, now: "-" if entry[field] is None else format(entry[field], layout)


def _word(field: str) -> Callable[[Entry, datetime], str]:
    return lambda entry, now: printable(entry[field] or "-")


def _data(entry: Entry, now: datetime) -> str:
    source = os.path.basename((entry["data_source"] or "").rstrip("/")) if entry["data"] in _OWN_DATA else ""
    return printable(source or entry["data"] or "-")


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
    """Return a duration as text, in the largest unit of which it has at least two: 95 s, 12 min, 3.4 h."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}" if seconds < 10 * size else f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


_CELLS: Mapping[str, Callable[[Entry, datetime], str]] = {
    "name": _word("name"),
    "status": _word("status"),
    "config": _word("config"),
    "data": _data,
    "steps": _number("steps", ",.0f"),
    "epochs": _number("epochs", ".2f"),
    "validation": _number("best_validation_accuracy", ".2%"),
    "test": _number("test_accuracy", ".2%"),
    "time": _time,
    "examples/s": _number("examples_per_second", ",.0f"),
    "workers": _workers,
    "epsilon": _epsilon,
    "age": _age,
    "note": _word("note"),
}
