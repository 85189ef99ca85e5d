"""Finds runs: by what the user calls them, and by a file in them."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from pathlib import Path

from partrain.errors import RunError
from partrain.store.run_directory import RunDirectory
from partrain.store.run_paths import RunPaths

_LAST = re.compile(r"last(?:~(\d{1,6}))?")


def find_run(reference: str, runs_dir: Path) -> Path:
    """Return the directory of the run that `reference` names.

    Parameters
    ----------
    reference : a path, a name in `runs_dir`, `last` for the newest run there, or `last~1` for the one before it.
    runs_dir : the directory of runs.

    Raises
    ------
    RunError
        There is no such run; the message names the nearest one.
    """
    runs = _runs_by_age(runs_dir)
    match = _LAST.fullmatch(reference)
    if match:
        position = int(match[1] or 0)
        if position < len(runs):
            return runs[-1 - position]
        raise RunError(f"{reference}: there are {len(runs)} runs in {runs_dir}")
    path = Path(reference)
    if os.path.isdir(reference):  # Path.is_dir raises for a name that is too long
        return path
    if os.sep not in reference and os.path.isdir(runs_dir / reference) and reference not in ("", ".", ".."):
        return runs_dir / reference
    nearest = difflib.get_close_matches(path.name, [run.name for run in runs], n=1, cutoff=0.4)
    hint = f"; did you mean {runs_dir / nearest[0]}?" if nearest else ""
    raise RunError(f"{reference!r}: there is no such run{hint}")


def _runs_by_age(runs_dir: Path) -> list[Path]:
    """Return the runs in a directory, the oldest first."""
    started = []
    for name in os.listdir(runs_dir) if os.path.isdir(runs_dir) else ():
        with contextlib.suppress(RunError):  # not a run, or a damaged one
            path = runs_dir / name
            started.append((str(RunDirectory.open(path).read_run_json().get("started")), path))
    return [path for _, path in sorted(started)]


def run_that_needs(path: Path) -> Path | None:
    """Return the directory of the run that `path` is a file of; None if it is no run's file.

    Parameters
    ----------
    path : an absolute path.
    """
    for directory in path.parents:
        run = RunPaths(directory)
        if os.path.lexists(run.run_json_path) or os.path.lexists(run.lock_path):
            return directory if run.is_run_file(path) else None
    return None
