"""Pooling."""

from __future__ import annotations

import numpy as np

from partrain.kernels import loops_pooling
from partrain.network.execution import Array, Views
from partrain.network.layers import AvgPool2d, GlobalAvgPool2d, MaxPool2d


class MaxPool2dLoops:
    KERNELS = (loops_pooling.max_pool_forward, loops_pooling.max_pool_backward_input)

    def __init__(self, layer: MaxPool2d, parameters: Views, tile: int, dtype: str) -> None:
        self.layer = layer
        self.y = np.empty((tile, *layer.output_shape), dtype)
        self.winner = np.empty(self.y.shape, np.int64)
        self.dx = np.empty((tile, *layer.input_shape), dtype)

    def forward(self, x: Array) -> Array:
        y, winner = self.y[: len(x)], self.winner[: len(x)]
        loops_pooling.max_pool_forward(x, self.layer.window, self.layer.stride, self.layer.padding, y, winner)
        return y

    def backward(self, dy: Array, needs_dx: bool) -> Array | None:
        dx = self.dx[: len(dy)]
        loops_pooling.max_pool_backward_input(dy, self.winner[: len(dy)], dx)
        return dx


class AvgPool2dLoops:
    """The mean of each window, or of the whole plane."""

    KERNELS = (loops_pooling.avg_pool_forward, loops_pooling.avg_pool_backward_input)

    def __init__(self, layer: AvgPool2d | GlobalAvgPool2d, parameters: Views, tile: int, dtype: str) -> None:
        whole = layer.input_shape[1:]
        self._geometry = (
            (layer.window, layer.stride, layer.padding) if isinstance(layer, AvgPool2d) else (whole, whole, (0, 0))
        )
        self.y = np.empty((tile, *layer.output_shape), dtype)
        self.dx = np.empty((tile, *layer.input_shape), dtype)

    def forward(self, x: Array) -> Array:
        y = self.y[: len(x)]
        loops_pooling.avg_pool_forward(x, *self._geometry, y)
        return y

    def backward(self, dy: Array, needs_dx: bool) -> Array | None:
        dx = self.dx[: len(dy)]
        loops_pooling.avg_pool_backward_input(dy, *self._geometry, dx)
        return dx
