"""Run directories whose creation was killed: they have no run.json yet, and nothing that was computed."""

from __future__ import annotations

import os
from pathlib import Path

from partrain.store.run_paths import CHECKPOINTS_DIRECTORY, CONFIG_FILE, LOCK_FILE, LOG_FILE, RunPaths, checkpoint_file
from partrain.system.durable_files import is_temporary

# In the order in which they are created, before run.json.
_FIRST_FILES = (CHECKPOINTS_DIRECTORY, LOCK_FILE, LOG_FILE, CONFIG_FILE)


def is_unfinished(path: Path) -> bool:
    """Return whether `path` is what a run leaves that is killed between creating its directory and run.json.

    Anything else in the directory, such as a checkpoint of a step or a file of the user, means that it is not.
    """
    run = RunPaths(path)
    try:
        if path.is_symlink():
            return False
        names = {name for name in os.listdir(path) if not is_temporary(name)}
        checkpoints = {name for name in os.listdir(run.checkpoints_path) if not is_temporary(name)}
    except OSError:
        return False
    return names == set(_FIRST_FILES[: len(names)]) and checkpoints <= {checkpoint_file(0)}


def is_ready_to_begin(path: Path) -> bool:
    """Return whether an unfinished run can begin from its own configuration.

    A run that starts from another run's parameters cannot: they are saved before the configuration is written, and the
    record of where they came from after it.
    """
    run = RunPaths(path)
    return run.config_path.is_file() and not (run.checkpoints_path / checkpoint_file(0)).exists()


def remove_first_files(path: Path) -> None:
    """Remove the files of an unfinished run, whose lock this process holds, except for its lock file.

    Raises
    ------
    OSError
        A file cannot be removed.
    """
    run = RunPaths(path)
    for file in (run.train_log_path, run.config_path, run.checkpoints_path / checkpoint_file(0)):
        file.unlink(missing_ok=True)
