"""The content of the article's saved file, and the article's forward pass, written from its formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SHAPES = ((8, 1, 5, 5), (8, 8, 5, 5), (128, 800), (10, 128), (8, 1), (8, 1), (128, 1), (10, 1))
NAMES = (
    "conv1.weight",
    "conv2.weight",
    "dense1.weight",
    "dense2.weight",
    "conv1.bias",
    "conv2.bias",
    "dense1.bias",
    "dense2.bias",
)


def article_params() -> list[NDArray[np.float64]]:
    """Return the eight arrays, random."""
    rng = np.random.Generator(np.random.Philox(key=1))
    return [rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:])) for shape in SHAPES]


def article_logits(params: list[NDArray[np.float64]], image_HW: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the logits of the article's network for an MNIST image; it normalises pixels as (x - 33) / 79."""
    f1, f2, w3, w4, b1, b2, b3, b4 = params

    def convolution(image: NDArray[Any], filters: NDArray[Any], biases: NDArray[Any]) -> NDArray[Any]:
        windows = np.lib.stride_tricks.sliding_window_view(image, filters.shape[2:], axis=(1, 2))
        return np.einsum("chwrs,fcrs->fhw", windows, filters) + biases[:, :, None]

    x = (image_HW[None] - 33.0) / 79
    x = np.maximum(convolution(x, f1, b1), 0)
    x = np.maximum(convolution(x, f2, b2), 0)
    channels, rows, columns = x.shape
    x = x.reshape(channels, rows // 2, 2, columns // 2, 2).max(axis=(2, 4))
    z = np.maximum(w3 @ x.reshape(-1, 1) + b3, 0)
    logits: NDArray[np.float64] = (w4 @ z + b4)[:, 0]
    return logits
