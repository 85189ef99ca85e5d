"""Checkpoints for tests; apart from them, because the processes that tests start import it too."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from partrain.store.checkpoint import Checkpoint, prune, save


def make_checkpoint(step: int = 3126) -> Checkpoint:
    """Return a checkpoint that is a function of its step."""
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


def replace_old_by_new(folder: Path) -> None:
    """Save the checkpoint of step 2 in the place of step 1."""
    prune(folder, newest=save(folder, make_checkpoint(2)), keep_last=1, best_step=None)
