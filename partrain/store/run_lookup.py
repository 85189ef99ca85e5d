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
from partrain.store.sweep_paths import is_trial_name

# The variable that names the directory of runs.
RUNS_DIR_VARIABLE = "PARTRAIN_RUNS_DIR"

_LAST = re.compile(r"last(?:~(\d{1,6}))?")
# The maximum number of runs that a message lists.
_MAX_LISTED = 3


def runs_directory(given: str | os.PathLike[str] | None) -> Path:
    """Return the directory of runs: the given one, or the one that the environment names, or `runs`."""
    return Path(given or os.environ.get(RUNS_DIR_VARIABLE) or "runs")


def find_run(reference: str, runs_dir: Path) -> Path:
    """Return the directory of the run that `reference` names.

    Parameters
    ----------
    reference : a path; the name of a run or a sweep in `runs_dir`, or the beginning of a run's name; `SWEEP/trial-001`
        for a run of a sweep; `last` for the newest run in `runs_dir`, or `last~1` for the one before it.
    runs_dir : the directory of runs.

    Raises
    ------
    RunError
        There is no such run, and the message names the nearest one; or several names begin with `reference`.
    """
    match = _LAST.fullmatch(reference)
    if match:
        runs, position = _runs_by_age(runs_dir), int(match[1] or 0)
        if position < len(runs):
            return runs[-1 - position]
        raise RunError(f"{reference}: there are {len(runs)} runs in {runs_dir}")
    path = Path(reference)
    if os.path.isdir(reference):  # Path.is_dir raises for a name that is too long
        return path
    directory = path.parent if os.sep in reference else runs_dir
    is_name = os.sep not in reference or (is_trial_name(path.name) and len(path.parts) == 2)
    if is_name and os.path.isdir(runs_dir / reference) and path.parts and path.parts[0] != "..":
        return runs_dir / reference
    completions = _runs_beginning_with(path.name, directory)
    if len(completions) > 1:
        names = ", ".join(run.name for run in completions[-_MAX_LISTED:])
        more = f" and {len(completions) - _MAX_LISTED} more" if len(completions) > _MAX_LISTED else ""
        raise RunError(f"{reference!r}: {len(completions)} runs begin like this: {names}{more}; write more of the name")
    if completions:
        return completions[0]
    nearest = difflib.get_close_matches(path.name, [run.name for run in _runs_by_age(runs_dir)], n=1, cutoff=0.4)
    hint = f"; did you mean {runs_dir / nearest[0]}?" if nearest else "; `partrain list` shows the runs"
    raise RunError(f"{reference!r}: there is no such run{hint}")


def _runs_beginning_with(beginning: str, directory: Path) -> list[Path]:
    """Return the runs in a directory whose names begin with a text, in alphabetical order."""
    names = _names_in(directory) if beginning else []
    runs = [RunPaths(directory / name) for name in names if name.startswith(beginning)]
    return [run.path for run in runs if os.path.isfile(run.run_json_path)]


def _runs_by_age(runs_dir: Path) -> list[Path]:
    """Return the runs in a directory, the oldest first."""
    started = []
    for name in _names_in(runs_dir):
        with contextlib.suppress(RunError):  # not a run, or a damaged one
            path = runs_dir / name
            started.append((str(RunDirectory.open(path).read_run_json().get("started")), path))
    return [path for _, path in sorted(started)]


def _names_in(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory)) if os.path.isdir(directory) else []
    except OSError as error:
        raise RunError(f"{directory}: cannot be read: {error.strerror}. Choose it with --runs-dir.") from error


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
