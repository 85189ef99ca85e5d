"""Checkpoints for tests. A file of its own, because processes that tests start import it, too."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from partrain.store.checkpoint import Checkpoint
from partrain.store.checkpoint_directory import CheckpointDirectory


def make_checkpoint(step: int = 3126) -> Checkpoint:
    """Return a checkpoint whose content depends only on its step."""
    rng = np.random.Generator(np.random.Philox(key=step))
    weights = rng.standard_normal((2, 1, 3, 3)).astype(np.float32)
    return Checkpoint(
        tensors={
            "conv1.weight": weights,
            "adam.first_moment.conv1.weight": 0.1 * weights,
            "adam.second_moment.conv1.weight": np.zeros_like(weights),
            "examples_seen": np.arange(3, dtype=np.int64),
            "loss_sum": np.array(0.1 + step),
        },
        metadata={
            "step": step,
            "epoch": 2,
            "seed": 0,
            "best": {"step": 2, "validation/accuracy": 0.1 + 0.2},
            "normalisation": {"mean": 33.3, "std": 78.6},
            "class_names": ["0", 'quote " and \\', "Größe"],
            "data": {"sha256": hashlib.sha256(b"data").hexdigest()},
        },
    )


def assert_same(one: Checkpoint, other: Checkpoint) -> None:
    """Check that two checkpoints are bit for bit the same."""
    assert one.metadata == other.metadata
    assert sorted(one.tensors) == sorted(other.tensors)
    for name, tensor in one.tensors.items():
        assert (tensor.dtype, tensor.shape) == (other.tensors[name].dtype, other.tensors[name].shape)
        assert tensor.tobytes() == other.tensors[name].tobytes()


def replace_old_by_new(directory: Path) -> None:
    """Save the checkpoint of step 2 and delete the one of step 1."""
    checkpoints = CheckpointDirectory(directory)
    checkpoints.save(make_checkpoint(2))
    checkpoints.prune(newest_step=2, keep_last=1, best_step=None)
