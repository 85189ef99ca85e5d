"""Where a new run goes, and whether a directory can be created there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from partrain.store.run_directory import RunDirectory, existing, unwritable
from partrain.store.unfinished_run import is_unfinished
from partrain.system.durable_files import make_folders


@dataclass(frozen=True)
class RunLocation:
    """The location of a new run: a generated name in `runs_dir`, or exactly `run_dir`."""

    runs_dir: Path
    run_dir: Path | None = None

    @property
    def parent(self) -> Path:
        """The directory that will contain the run's directory."""
        return self.runs_dir if self.run_dir is None else self.run_dir.absolute().parent

    def require_creatable(self) -> None:
        """Check that the run's directory can be created, before anything else is done for the run.

        Raises
        ------
        RunError
            `run_dir` exists, and is not what a run left that was killed before it began.
        ResourceError
            `parent` cannot be written.
        """
        if self.run_dir is not None and os.path.lexists(self.run_dir) and not is_unfinished(self.run_dir):
            raise existing(self.run_dir)
        check_writable(self.parent)

    def create(self, name: str, fill: Callable[[RunDirectory], None] | None = None) -> RunDirectory:
        """Create the run's directory.

        Parameters
        ----------
        name : the configuration's name, part of a generated name.
        fill : as for `RunDirectory.create`.

        Raises
        ------
        ConfigError, RunError, ResourceError
            As `RunDirectory.create` and `RunDirectory.create_at`.
        """
        if self.run_dir is not None:
            return RunDirectory.create_at(self.run_dir, fill)
        return RunDirectory.create(self.runs_dir, name, datetime.now(UTC), fill)


def check_writable(directory: Path) -> None:
    """Check that a directory can be created in `directory`, by creating one and removing it.

    Permission bits are not enough: root may ignore them, and a read-only file system ignores root.

    Raises
    ------
    ResourceError
        It cannot; the message names the directory, the cause and a remedy.

    Side effects
    ------------
    Creates `directory` if it is missing.
    """
    try:
        make_folders(directory)
        os.rmdir(tempfile.mkdtemp(prefix=".partrain-probe-", dir=directory))
    except OSError as error:
        raise unwritable(directory, error) from error
