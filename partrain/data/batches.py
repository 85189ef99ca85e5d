"""The order in which training examples come, and what is measured of them: normalisation and class weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.data.dataset import let_go
from partrain.kernels.randomness import permutation
from partrain.network.normalisation import Normalisation

# Images a piece, when something is measured over a data set that may be larger than memory; fewer, where so many
# would take much memory as float64.
_CHUNK = 512
_CHUNK_VALUES = 512 * 32768


def epoch_order(num_examples: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order in which `epoch` (counted from 0) goes through the training examples."""
    return permutation(num_examples, seed=seed, purpose="shuffle", epoch=epoch)


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Return how many batches an epoch has; the last one may be smaller."""
    return -(-num_examples // batch_size)


def measure_normalisation(images_NCHW: NDArray[Any]) -> Normalisation:
    """Measure the training images, in two passes over pieces of them, in their order.

    A channel that is the same everywhere gets a deviation of 1.
    """
    N, C, H, W = images_NCHW.shape
    count = N * H * W
    size = max(1, min(_CHUNK, _CHUNK_VALUES // (C * H * W)))
    pieces = range(0, N, size)
    total = np.zeros(C)
    for first in pieces:
        total += images_NCHW[first : first + size].sum(axis=(0, 2, 3), dtype=np.float64)
        let_go(images_NCHW)
    mean = total / count
    squares = np.zeros(C)
    for first in pieces:
        deviation = images_NCHW[first : first + size] - mean[:, None, None]
        squares += (deviation * deviation).sum(axis=(0, 2, 3))
        let_go(images_NCHW)
    std = np.sqrt(squares / count)
    std[std == 0] = 1
    return Normalisation(tuple(mean.tolist()), tuple(std.tolist()))


def class_weights(labels_N: NDArray[np.int64], num_classes: int) -> tuple[float, ...]:
    """Return the weight of each class with which all classes count the same: N / (classes · examples of the class).

    That is what scikit-learn calls "balanced". Over an epoch the weights of all examples are 1 on average. A class
    without examples gets 0.
    """
    counts = np.bincount(labels_N, minlength=num_classes).tolist()
    num_there = sum(count > 0 for count in counts)
    return tuple(len(labels_N) / (num_there * count) if count else 0.0 for count in counts)


def fixed_normalisation(images_NCHW: NDArray[Any]) -> Normalisation:
    """Return one that is no function of the images' values, which a private training must not measure.

    Bytes become 0 to 2, so that the dark ground of digits stays 0; other numbers stay as they are.
    """
    C = images_NCHW.shape[1]
    return Normalisation((0.0,) * C, (127.5 if images_NCHW.dtype == np.uint8 else 1.0,) * C)
