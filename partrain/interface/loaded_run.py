"""Keeps a trained run loaded as long as its files stay the same, so that many small predictions are fast."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from partrain.analysis.trained_run import TrainedRun, Weights, load_trained_run
from partrain.store.run_directory import RunDirectory


class LoadedRun:
    """The network of a run with the parameters of a checkpoint, read again only when a file of the run has changed.

    A change is noticed by inode, size and times. Several threads may share this object.

    Parameters
    ----------
    path : the run's directory.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: tuple[tuple[object, ...], TrainedRun] | None = None

    def __reduce__(self) -> Any:
        return LoadedRun, (self._path,)

    def read(self, checkpoint: str, warn: Callable[[str], None], weights: Weights = "raw") -> TrainedRun:
        """Return the trained run; parameters and exceptions are those of `load_trained_run`."""
        state, kept = (weights, *self._state_of_files(checkpoint)), self._kept
        if kept is not None and kept[0] == state:
            return kept[1]
        trained = load_trained_run(self._path, checkpoint, warn, weights)
        # The state is that of before: a file that changed meanwhile is read again next time.
        self._kept = (state, trained)
        return trained

    def _state_of_files(self, checkpoint: str) -> tuple[object, ...]:
        run = RunDirectory.open(self._path)
        files = (run.config_path, run.run_json_path, *run.checkpoints.files(), Path(checkpoint))
        return (checkpoint, *map(_state_of_file, files))


def _state_of_file(path: Path) -> tuple[object, ...]:
    try:
        status = os.stat(path)
    except OSError:
        return (path, None)
    return (path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
