"""The paths of a run: every name of a file in a run's directory is written here, and only here."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

CONFIG_FILE = "config.yaml"
RUN_FILE = "run.json"
METRICS_FILE = "metrics.jsonl"
SUMMARY_FILE = "summary.json"
LOG_FILE = "train.log"
LOCK_FILE = "run.lock"
NOTES_FILE = "notes.jsonl"
CHECKPOINTS_DIRECTORY = "checkpoints"
PLOTS_DIRECTORY = "plots"
TENSORBOARD_DIRECTORY = "tensorboard"

_CHECKPOINT_FILE = re.compile(r"step-(\d{8,})\.safetensors")
# The files and directories in a run's directory.
_FILES = (
    *(CONFIG_FILE, RUN_FILE, METRICS_FILE, SUMMARY_FILE, LOG_FILE, LOCK_FILE, NOTES_FILE),
    *(CHECKPOINTS_DIRECTORY, PLOTS_DIRECTORY, TENSORBOARD_DIRECTORY),
)
_NUMBERED_FILE = re.compile(r"metrics\.cut-\d+\.jsonl|evaluation-\w+\.json")


def checkpoint_file(step: int) -> str:
    """Return the name of the checkpoint file of a step."""
    return f"step-{step:08d}.safetensors"


def step_of_checkpoint_file(name: str) -> int | None:
    """Return the step of a checkpoint file; None if the name is not that of a checkpoint."""
    match = _CHECKPOINT_FILE.fullmatch(name)
    return int(match[1]) if match else None


class RunPaths:
    """The paths in one run's directory, whether the files exist or not.

    Parameters
    ----------
    path : the run's directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def config_path(self) -> Path:
        """The resolved configuration."""
        return self.path / CONFIG_FILE

    @property
    def run_json_path(self) -> Path:
        """The record of the run: what it is, where it ran, how it ended."""
        return self.path / RUN_FILE

    @property
    def metrics_path(self) -> Path:
        """The metrics, one line per logged step and per evaluation."""
        return self.path / METRICS_FILE

    @property
    def summary_path(self) -> Path:
        """The results of a completed run."""
        return self.path / SUMMARY_FILE

    @property
    def train_log_path(self) -> Path:
        """The messages of the run."""
        return self.path / LOG_FILE

    @property
    def notes_path(self) -> Path:
        """What the user has noted about the run; created with the first note."""
        return self.path / NOTES_FILE

    @property
    def lock_path(self) -> Path:
        """The file that the process that writes into the run has locked."""
        return self.path / LOCK_FILE

    @property
    def checkpoints_path(self) -> Path:
        """The directory of checkpoints; created with the run."""
        return self.path / CHECKPOINTS_DIRECTORY

    @property
    def plots_path(self) -> Path:
        """The directory of plots; created with the first plot."""
        return self.path / PLOTS_DIRECTORY

    @property
    def tensorboard_path(self) -> Path:
        """The directory of TensorBoard events; created if the configuration asks for them."""
        return self.path / TENSORBOARD_DIRECTORY

    def evaluation_path(self, split: str) -> Path:
        """Return the path of the evaluation on a split."""
        return self.path / f"evaluation-{split}.json"

    def special_file(self) -> Path | None:
        """Return a file of the run that is a pipe, a socket or a device: reading it may never end. None if none is."""
        with contextlib.suppress(OSError), os.scandir(self.path) as entries:
            for entry in entries:
                is_usual = os.path.isfile(entry) or os.path.isdir(entry) or not os.path.exists(entry)
                if not is_usual and self.is_run_file(Path(entry.path)):
                    return Path(entry.path)
        return None

    def is_run_file(self, path: Path) -> bool:
        """Return whether training or evaluation writes this path; the directory may also contain others' files."""
        if path.parent == self.path:
            return path.name in _FILES or _NUMBERED_FILE.fullmatch(path.name) is not None
        directories = (self.checkpoints_path, self.plots_path, self.tensorboard_path)
        return any(directory in path.parents for directory in directories)
