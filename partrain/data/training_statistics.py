"""Statistics of the training examples: mean and standard deviation of the images, and class weights.

Shapes: N examples; C, H, W channels, rows, columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.data.mapped_arrays import release_pages
from partrain.network.normalisation import Normalisation

# Images are read in pieces, for a data set may be larger than memory: 512 images, or fewer if they are large.
_PIECE_IMAGES = 512
_PIECE_VALUES = 512 * 32768


def measure_normalisation(images_NCHW: NDArray[Any]) -> Normalisation:
    """Return mean and standard deviation of each channel, measured in two passes over the images.

    A constant channel gets a standard deviation of 1.

    Parameters
    ----------
    images_NCHW : uint8 or float32; read.
    """
    N, C, H, W = images_NCHW.shape
    count = N * H * W

    def piece(first: int) -> NDArray[Any]:
        # In C order, because NumPy adds in the order of the memory, and sums would depend on it.
        return np.asarray(images_NCHW[first : first + size], order="C")

    size = max(1, min(_PIECE_IMAGES, _PIECE_VALUES // (C * H * W)))
    pieces = range(0, N, size)
    total = np.zeros(C)
    for first in pieces:
        total += piece(first).sum(axis=(0, 2, 3), dtype=np.float64)
        release_pages(images_NCHW)
    mean = total / count
    squares = np.zeros(C)
    for first in pieces:
        deviation = piece(first) - mean[:, None, None]
        squares += (deviation * deviation).sum(axis=(0, 2, 3))
        release_pages(images_NCHW)
    std = np.sqrt(squares / count)
    std[std == 0] = 1
    return Normalisation(tuple(mean.tolist()), tuple(std.tolist()))


def fixed_normalisation(images_NCHW: NDArray[Any]) -> Normalisation:
    """Return a normalisation that does not depend on the images' values, which private training must not measure.

    Bytes are scaled to 0 to 2, so that a black background stays 0; float32 images are not changed.
    """
    C = images_NCHW.shape[1]
    return Normalisation((0.0,) * C, (127.5 if images_NCHW.dtype == np.uint8 else 1.0,) * C)


def class_weights(labels_N: NDArray[np.int64], num_classes: int) -> tuple[float, ...]:
    """Return the weights with which all classes count the same: N / (classes · examples of the class).

    scikit-learn calls them "balanced". The mean weight of the examples is 1. A class without examples gets 0.

    Parameters
    ----------
    labels_N : int64; read.
    """
    counts = np.bincount(labels_N, minlength=num_classes).tolist()
    num_present = sum(count > 0 for count in counts)
    return tuple(len(labels_N) / (num_present * count) if count else 0.0 for count in counts)
