"""The part of a run of the Python API that only reads and writes files, and computes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from partrain.config.reader import read_config
from partrain.config.schema.config import Config
from partrain.errors import ConfigError
from partrain.store.metrics_log import read_metrics
from partrain.store.run_directory import RunDirectory, reporting_write_errors
from partrain.store.run_notes import Note, append_note, notes_of
from partrain.store.run_removal import find_removable, remove


class StoredRun:
    """The files of a run.

    Attributes
    ----------
    path : the run's directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def status(self) -> str:
        """Completed, running, interrupted (by a signal or a callback: it can be resumed) or failed."""
        return RunDirectory.open(self.path).status()

    @property
    def config(self) -> Config:
        """The resolved configuration."""
        return read_config(RunDirectory.open(self.path).config_path)

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl: one per logged step, and one per evaluation during training."""
        return read_metrics(RunDirectory.open(self.path).metrics_path)

    @property
    def summary(self) -> dict[str, Any]:
        """The content of summary.json: times; final, best and test metrics; the digest of the parameters."""
        return RunDirectory.open(self.path).read_summary()

    @property
    def notes(self) -> list[Note]:
        """What was noted about the run, the oldest first, each with `time` (ISO 8601, UTC) and `text`."""
        return notes_of(RunDirectory.open(self.path))

    def add_note(self, text: str) -> None:
        """Note something about the run, like the command `partrain note`; also while it trains.

        Raises
        ------
        partrain.errors.UserError
            The text is empty, or cannot be written.
        """
        if not isinstance(text, str) or not text.strip():
            raise ConfigError(f"add_note: {text!r} is not a text, or is empty")
        run = RunDirectory.open(self.path)
        with reporting_write_errors(run):
            append_note(run.notes_path, text)

    def remove(self) -> None:
        """Remove the run's directory with all files in it, like the command `partrain remove`, but without a question.

        Raises
        ------
        partrain.errors.UserError
            A process is writing into the run, `path` is a link or not a run (any more), or cannot be removed.
        """
        remove(find_removable(self.path, self.path.parent))
