"""Saving: writes checkpoints, and deletes the ones that are no longer needed."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

from partrain.config.schema.config import Checkpoints
from partrain.errors import DataError, FailedRun
from partrain.store.checkpoint import Checkpoint
from partrain.store.checkpoint_directory import CheckpointDirectory
from partrain.system.fault_injection import kill_point
from partrain.system.timer import Stopwatch


def _call(work: Callable[[], object]) -> None:
    work()


class StateSink(Protocol):
    """Receives the states of a training run."""

    checkpoints: CheckpointDirectory | None
    saved_step: int | None

    def is_due(self, step: int, *, is_best: bool) -> bool:
        """Return whether to save after `step`."""

    def notice_removal(self) -> bool:
        """Return whether the newest checkpoint was removed; then the next save is due now."""

    def save_first(self, state: Checkpoint) -> None:
        """Save the state that a run starts from."""

    def save(self, step: int, make_state: Callable[[], Checkpoint], *, best_step: int | None, is_last: bool) -> None:
        """Save the state after `step`."""


class Checkpointer:
    """Saves the state of a run.

    Parameters
    ----------
    checkpoints : where to save; None: nothing is saved, because another rank saves.
    settings : how often to save, and what to keep.
    steps_per_epoch : a checkpoint is also due at the end of each epoch.
    clock : counts the time as the activity "checkpoint".
    warn : receives warnings.
    require_unchanged_data : raises DataError if the data files have changed during the training; then nothing is saved.
    flush_metrics : makes the metrics durable; called before each checkpoint is written. May raise OSError.
    run_write : calls the function that writes a checkpoint, and re-raises its OSError.

    Attributes
    ----------
    checkpoints : as the parameter; the caller changes it if the directory is moved.
    saved_step : the step of the newest checkpoint; None if there is none yet.
    """

    def __init__(
        self,
        checkpoints: CheckpointDirectory | None,
        settings: Checkpoints,
        steps_per_epoch: int,
        *,
        clock: Stopwatch,
        warn: Callable[[str], None],
        require_unchanged_data: Callable[[], None],
        flush_metrics: Callable[[], None],
        run_write: Callable[[Callable[[], object]], object] = _call,
    ) -> None:
        self.checkpoints, self._settings, self._steps_per_epoch = checkpoints, settings, steps_per_epoch
        self._clock, self._warn = clock, warn
        self._require_unchanged_data, self._flush_metrics, self._run_write = (
            require_unchanged_data,
            flush_metrics,
            run_write,
        )
        self.saved_step: int | None = None

    def is_due(self, step: int, *, is_best: bool) -> bool:
        """Return whether to save after `step`."""
        every_steps = self._settings.every_steps
        return (
            step % self._steps_per_epoch == 0
            or (is_best and self._settings.keep_best)
            or (every_steps is not None and step % every_steps == 0)
        )

    def save_first(self, state: Checkpoint) -> None:
        """Save the state that a run starts from.

        Raises
        ------
        OSError
            The state cannot be saved.
        """
        if self.checkpoints is not None:
            self.checkpoints.save(state)
        self.saved_step = state.step

    def notice_removal(self) -> bool:
        """Return whether the newest checkpoint was removed; then the next save is due now."""
        if self.checkpoints is None or self.saved_step is None:
            return False
        path = self.checkpoints.path_of(self.saved_step)
        if os.path.exists(path):
            return False
        self._warn(f"{path}: was removed; the current step is saved in its place")
        self.saved_step = None
        return True

    def save(self, step: int, make_state: Callable[[], Checkpoint], *, best_step: int | None, is_last: bool) -> None:
        """Save the state after `step` unless it is already saved, and delete checkpoints that are no longer needed.

        Parameters
        ----------
        make_state : returns the state.
        best_step : the step with the best validation result so far.
        is_last : whether this is the last save of the session.

        Raises
        ------
        FailedRun
            The data has changed, or the last save failed. A failure of an earlier save is a warning.
        MomentsLost
            Another rank has a part of the state, and does not answer.
        """
        checkpoints = self.checkpoints
        if checkpoints is None or self.saved_step == step:
            return
        self._check_data()
        kill_point("coordinator: before a save")
        with self._clock.timing("checkpoint"):
            state = make_state()  # here: with MPI it may need the other ranks, and a child process may write
            try:
                self._run_write(lambda: self._write(checkpoints, state))
            except OSError as error:
                message = f"step {step} could not be saved in {checkpoints.path}: {error.strerror}"
                files = checkpoints.files()
                kept = f"the last good checkpoint is kept: {files[-1].name}" if files else "there is no checkpoint"
                if is_last:
                    raise FailedRun(f"{message}; {kept}") from error
                self._warn(f"{message}; training continues, and {kept}")
                return
            self.saved_step = step
            kill_point("coordinator: between a save and the deletion of older ones")
            self._prune(checkpoints, step, best_step)
        kill_point("coordinator: after a save")

    def _write(self, checkpoints: CheckpointDirectory, state: Checkpoint) -> None:
        self._flush_metrics()
        checkpoints.save(state)

    def _prune(self, checkpoints: CheckpointDirectory, step: int, best_step: int | None) -> None:
        settings = self._settings
        try:
            checkpoints.prune(
                newest_step=step,
                keep_last=settings.keep_last,
                best_step=best_step if settings.keep_best else None,
            )
        except OSError as error:
            self._warn(f"an old checkpoint in {checkpoints.path} could not be deleted: {error.strerror}")

    def _check_data(self) -> None:
        try:
            self._require_unchanged_data()
        except DataError as error:
            raise FailedRun(
                f"{error} The steps after the last checkpoint were not saved: restore the old file and resume the "
                "run, or train a new run."
            ) from error
