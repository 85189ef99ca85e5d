from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from partrain.config.schema.config import Checkpoints
from partrain.errors import DataError, FailedRun
from partrain.store.checkpoint import Checkpoint
from partrain.store.checkpoint_directory import CheckpointDirectory
from partrain.system.timer import Stopwatch
from partrain.training.checkpointer import Checkpointer


def state_of(step: int) -> Callable[[], Checkpoint]:
    return lambda: Checkpoint({"w": np.full(3, step, np.float32)}, {"step": step})


def make(folder: Path, warnings: list[str], **changes: Any) -> Checkpointer:
    options = {
        "clock": Stopwatch("train", "checkpoint"),
        "warn": warnings.append,
        "require_unchanged_data": lambda: None,
        "flush_metrics": lambda: None,
    }
    settings = changes.pop("settings", Checkpoints(every_steps=4, keep_last=2, keep_best=True))
    return Checkpointer(CheckpointDirectory(folder), settings, 10, **(options | changes))


def saved_in(folder: Path) -> list[int]:
    return [int(path.stem.partition("-")[2]) for path in CheckpointDirectory(folder).files()]


def test_save_is_due_at_its_steps_at_the_end_of_an_epoch_and_after_the_best_validation(tmp_path: Path) -> None:
    checkpointer = make(tmp_path, [])
    assert [step for step in range(1, 13) if checkpointer.is_due(step, is_best=step == 7)] == [4, 7, 8, 10, 12]


def test_the_newest_checkpoints_and_the_best_are_kept(tmp_path: Path) -> None:
    checkpointer = make(tmp_path, [])
    for step in range(1, 7):
        checkpointer.save(step, state_of(step), best_step=2, is_last=step == 6)
    assert saved_in(tmp_path) == [2, 5, 6]


def test_step_is_saved_once(tmp_path: Path) -> None:
    flushed: list[int] = []
    checkpointer = make(tmp_path, [], flush_metrics=lambda: flushed.append(1))
    for is_last in (False, True):
        checkpointer.save(3, state_of(3), best_step=None, is_last=is_last)
    assert len(flushed) == 1


def test_failed_save_is_a_warning_and_the_last_one_a_failure(tmp_path: Path) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    warnings: list[str] = []
    checkpointer = make(tmp_path, warnings, flush_metrics=full)
    checkpointer.save(3, state_of(3), best_step=None, is_last=False)
    assert len(warnings) == 1
    assert "step 3 could not be saved" in warnings[0]
    with pytest.raises(FailedRun, match=r"step 3 could not be saved .* No space left"):
        checkpointer.save(3, state_of(3), best_step=None, is_last=True)


def test_failed_save_names_the_checkpoint_that_is_there_or_says_that_there_is_none(tmp_path: Path) -> None:
    fails: list[OSError] = []

    def flush() -> None:
        for error in fails:
            raise error

    warnings: list[str] = []
    checkpointer = make(tmp_path, warnings, flush_metrics=flush)
    checkpointer.save(2, state_of(2), best_step=None, is_last=False)
    fails.append(OSError(errno.EIO, "Input/output error"))
    checkpointer.save(3, state_of(3), best_step=None, is_last=False)
    (tmp_path / "step-00000002.safetensors").unlink()
    checkpointer.save(4, state_of(4), best_step=None, is_last=False)
    assert [warning.partition("continues, and ")[2] for warning in warnings] == [
        "the last good checkpoint is kept: step-00000002.safetensors",
        "there is no checkpoint",
    ]


def test_parameters_of_changed_data_are_not_saved(tmp_path: Path) -> None:
    def changed() -> None:
        raise DataError("images.npy was changed.")

    checkpointer = make(tmp_path, [], require_unchanged_data=changed)
    with pytest.raises(FailedRun, match=r"images.npy was changed. The steps after the last checkpoint were not saved"):
        checkpointer.save(3, state_of(3), best_step=None, is_last=False)
    assert saved_in(tmp_path) == []
