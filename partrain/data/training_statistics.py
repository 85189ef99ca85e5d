"""Statistics of the training examples: mean and standard deviation of the images, and class weights.

Shapes: N examples; C, H, W channels, rows, columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.data.mapped_arrays import release_pages
from partrain.network.normalisation import Normalisation

# Pixels of a block of images, if one image has not more: a data set may be larger than memory.
_BLOCK_PIXELS = 2**16


def measure_normalisation(images_NCHW: NDArray[Any]) -> Normalisation:
    """Return mean and standard deviation of each channel, measured in two passes over the images.

    A constant channel gets a standard deviation of 1.

    Parameters
    ----------
    images_NCHW : uint8 or float32; read.
    """
    count = images_NCHW[:, 0].size
    mean_C11 = (_channel_sums(images_NCHW, lambda block: block) / count)[:, np.newaxis, np.newaxis]

    def squared_deviations(block: NDArray[Any]) -> NDArray[np.float64]:
        deviations: NDArray[np.float64] = block - mean_C11
        deviations *= deviations
        return deviations

    std = np.sqrt(_channel_sums(images_NCHW, squared_deviations) / count)
    std[std == 0] = 1
    return Normalisation(tuple(mean_C11.ravel().tolist()), tuple(std.tolist()))


def _channel_sums(images_NCHW: NDArray[Any], function: Callable[[NDArray[Any]], NDArray[Any]]) -> NDArray[np.float64]:
    """Return the sum of function(pixel) over each channel, (C,), with the same bits on every processor.

    There is a partial sum for each place in a block of images. Blocks are added to them one after the other, and the
    partial sums are added exactly, so no order is left to NumPy.
    """
    N, C, H, W = images_NCHW.shape
    size = max(1, _BLOCK_PIXELS // (C * H * W))
    sums_BCHW = np.zeros((min(N, size), C, H, W))
    for first in range(0, N, size):
        block = images_NCHW[first : first + size]
        sums_BCHW[: len(block)] += function(block)
        release_pages(images_NCHW)
    return np.array([math.fsum(sums_BCHW[:, c].flat) for c in range(C)])


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
