"""What a training says at its start about classes without examples, and about empty batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from partrain.system import messages
from tests.noise_data import noise_examples
from tests.program import Result
from tests.small_run import write_small_config

Call = Callable[..., Result]
NETWORK: list[Any] = ["flatten", {"dense": {"units": 3}}]


def train(call_partrain: Call, tmp_path: Path, labels: np.ndarray, data: Any = None, **arrays: Any) -> Result:
    images, _ = noise_examples(len(labels), size=6)
    np.savez(tmp_path / "x.npz", x_train=images, y_train=labels, x_test=images[:9], y_test=np.arange(9) % 3, **arrays)
    section = {"name": "arrays", "path": str(tmp_path / "x.npz"), **(data or {})}
    config = write_small_config(tmp_path, {"data": section, "network": NETWORK})
    return call_partrain("--config", config, "--workers", 0, "--run-dir", tmp_path / "run")


def test_classes_without_examples_are_named_before_the_training(call_partrain: Call, tmp_path: Path) -> None:
    labels = np.array([0, 1] * 10 + [2] * 4)
    result = train(call_partrain, tmp_path, labels, validation_examples=np.array(4))
    assert result.exit_code == 0
    assert "warning: there are no training examples of 2: the network cannot learn this class" in result.stderr
    assert "there are no validation examples of 0, 1" in result.stderr
    assert result.stderr.index("no training examples") < result.stderr.index("parameters, arrays from")
    assert "no training examples" in (result.run / "train.log").read_text()


def test_missing_validation_is_a_warning_unless_it_was_asked_for(call_partrain: Call, tmp_path: Path) -> None:
    labels = np.arange(24) % 3
    result = train(call_partrain, tmp_path, labels, data={"train_examples": 24})
    assert "warning: there are no validation examples" in result.stderr
    (tmp_path / "run").rename(tmp_path / "first")
    result = train(call_partrain, tmp_path, labels, data={"validation_examples": 0})
    assert "no validation examples" not in result.stderr


def test_progress_shows_the_last_loss_if_the_last_batch_of_a_private_training_is_empty(
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress = messages.Messages(quiet=False).progress(first_step=0, last_step=2, num_epochs=1)
    progress.step(1, 1, 0.25, 3)
    progress.step(2, 1, float("nan"), 0)
    progress.close()
    assert "loss 0.2500" in capsys.readouterr().err
