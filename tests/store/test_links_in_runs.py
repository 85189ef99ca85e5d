"""A run may come from somebody else: writing into it follows no link to another file, and does not wait for a pipe."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from partrain.errors import PartrainError
from partrain.store.metrics_log import MetricsLog
from partrain.store.run_lock import RunLock
from partrain.store.training_log import TrainingLog

FILES: dict[str, Callable[[Path], object]] = {
    "metrics.jsonl": MetricsLog,
    "train.log": TrainingLog,
    "run.lock": lambda path: RunLock(path).acquire(),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("target", ["precious", "new"])
def test_file_of_a_run_that_is_a_link_is_not_written(tmp_path: Path, name: str, target: str) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to(f"../{target}")
    with pytest.raises((OSError, PartrainError)):
        FILES[name](tmp_path / "run" / name)
    assert (tmp_path / "precious").read_text() == "mine"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", FILES)
def test_file_of_a_run_that_is_a_pipe_does_not_block(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises((OSError, PartrainError)):
        FILES[name](tmp_path / name)
