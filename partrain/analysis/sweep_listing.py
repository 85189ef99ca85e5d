"""Lists the sweeps of a directory, below its runs."""

from __future__ import annotations

import contextlib
import os
import shlex
from pathlib import Path

from partrain.errors import RunError
from partrain.store.run_directory import RunDirectory
from partrain.store.run_documents import read_document
from partrain.store.run_lock import RunLock
from partrain.store.sweep_paths import SWEEP_FILE, SWEEP_LOCK_FILE, is_sweep, is_trial_name


def list_sweeps(runs_dir: Path) -> list[str]:
    """Return a line for each sweep in a directory, the newest first: how many of its trainings are complete.

    Raises
    ------
    RunError
        The directory cannot be read.
    """
    try:
        paths = [runs_dir / name for name in sorted(os.listdir(runs_dir), reverse=True)]
    except OSError as error:
        raise RunError(f"{runs_dir}: cannot be read: {error.strerror}. Choose it with --runs-dir.") from error
    return [_describe(path) for path in paths if is_sweep(path)]


def _describe(path: Path) -> str:
    num_complete = 0
    for trial in runs_of_sweep(path):
        with contextlib.suppress(RunError):  # a damaged one
            num_complete += RunDirectory.open(trial).status() == "completed"
    try:
        num_trials = read_document(path / SWEEP_FILE).get("num_trials")
        running = ", running" if RunLock(path / SWEEP_LOCK_FILE).holder() else ""
    except RunError as error:
        return f"sweep {path.name}: {error}"
    more = f"partrain list {shlex.quote(str(path))}"
    return f"sweep {path.name}: {num_complete} of {num_trials} trainings complete{running}; {more}"


def runs_of_sweep(path: Path) -> list[Path]:
    """Return the run directories of a sweep, those that have begun."""
    trials = [path / name for name in sorted(os.listdir(path)) if is_trial_name(name)]
    return [trial for trial in trials if os.path.isfile(RunDirectory(trial).run_json_path)]
