"""The checkpoints of a run: saves them durably, finds the newest good one, deletes old ones."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from partrain.store.checkpoint import Checkpoint, CorruptCheckpoint, encode, load, read_shapes
from partrain.store.run_paths import checkpoint_file, step_of_checkpoint_file
from partrain.system.durable_files import sweep_temporaries, sync_folder, write_durably


@dataclass(frozen=True)
class CheckpointDirectory:
    """A run's directory of checkpoints; one that does not exist contains none."""

    path: Path

    def path_of(self, step: int) -> Path:
        """Return the path of the checkpoint of a step, whether it exists or not."""
        return self.path / checkpoint_file(step)

    def files(self) -> list[Path]:
        """Return the checkpoint files, good or not, in the order of their steps."""
        return [path for _, path in self._files_with_steps()]

    def _files_with_steps(self) -> list[tuple[int, Path]]:
        if not self.path.is_dir():
            return []
        steps = [(step_of_checkpoint_file(path.name), path) for path in self.path.iterdir()]
        return sorted((step, path) for step, path in steps if step is not None and path.is_file())

    def save(self, checkpoint: Checkpoint) -> Path:
        """Save a checkpoint and return its path. After this returns, it survives a crash and a power failure.

        Raises
        ------
        OSError
            The disk is full, or an I/O error. No temporary file stays, and older checkpoints are untouched.

        Side effects
        ------------
        Creates the directory if it was removed, but not the run's.
        """
        path, content = self.path_of(checkpoint.step), encode(checkpoint)
        try:
            write_durably(path, content)
        except FileNotFoundError:
            os.mkdir(self.path)
            sync_folder(self.path.parent)
            write_durably(path, content)
        return path

    def newest_good(self, warn: Callable[[str], None]) -> tuple[Checkpoint, Path] | None:
        """Return the checkpoint with the highest step that can be loaded, and its path; None if there is none.

        Parameters
        ----------
        warn : receives a message about each damaged file, which is skipped.

        Raises
        ------
        RunError
            A newer partrain wrote the newest good file.
        """
        for path in reversed(self.files()):
            try:
                return load(path), path
            except FileNotFoundError:
                # A training run in progress has saved a newer checkpoint and deleted this one.
                return self.newest_good(warn)
            except CorruptCheckpoint as error:
                warn(f"{error} It is skipped.")
            except OSError as error:
                warn(f"{path}: cannot be read: {error.strerror}. It is skipped.")
        return None

    def newest_shapes(self) -> dict[str, tuple[int, ...]] | None:
        """Return the shapes of the newest checkpoint's tensors by name; None if there is no checkpoint.

        Raises
        ------
        CorruptCheckpoint, OSError
            As `read_shapes`.
        """
        files = self.files()
        return read_shapes(files[-1]) if files else None

    def prune(self, *, newest_step: int, keep_last: int, best_step: int | None) -> None:
        """Delete the checkpoints that need not be kept, after the one of `newest_step` was saved.

        Checkpoints of later steps are deleted as well: the run was resumed from an earlier one because they are
        damaged, and they must not count among the last.

        Parameters
        ----------
        newest_step : the step that was just saved; always kept.
        keep_last : the number of checkpoints to keep, counted back from the newest; at least 1.
        best_step : the step of another checkpoint to keep, if there is one.

        Raises
        ------
        OSError
            A file cannot be deleted.

        Side effects
        ------------
        Removes the temporary files that killed processes left.
        """
        if keep_last < 1:
            raise ValueError("keep_last is at least 1")
        files = self._files_with_steps()
        last = [path for step, path in files if step <= newest_step][-keep_last:]
        kept = {self.path_of(newest_step), *last} | (set() if best_step is None else {self.path_of(best_step)})
        for _, path in files:
            if path not in kept:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
        sweep_temporaries(self.path)
