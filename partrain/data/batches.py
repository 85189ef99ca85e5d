"""The order in which an epoch visits the training examples, and the number of its batches."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from partrain.kernels.randomness import permutation


def epoch_order(num_examples: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the indices of the training examples in the order of `epoch` (counted from 0)."""
    return permutation(num_examples, seed=seed, purpose="shuffle", epoch=epoch)


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Return the number of batches in an epoch; the last one may be smaller."""
    return -(-num_examples // batch_size)
