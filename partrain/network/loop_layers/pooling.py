"""Pooling."""

from __future__ import annotations

import numpy as np

from partrain.kernels import loops
from partrain.network.execution import Array, Views
from partrain.network.layers import MaxPool2d


class MaxPool2dLoops:
    KERNELS = (loops.max_pool_forward, loops.max_pool_backward_input)

    def __init__(self, layer: MaxPool2d, parameters: Views, tile: int, dtype: str) -> None:
        self.layer = layer
        self.y = np.empty((tile, *layer.output_shape), dtype)
        self.winner = np.empty(self.y.shape, np.int64)
        self.dx = np.empty((tile, *layer.input_shape), dtype)

    def forward(self, x: Array) -> Array:
        y, winner = self.y[: len(x)], self.winner[: len(x)]
        loops.max_pool_forward(x, self.layer.window, self.layer.stride, y, winner)
        return y

    def backward(self, dy: Array, needs_dx: bool) -> Array | None:
        dx = self.dx[: len(dy)]
        loops.max_pool_backward_input(dy, self.winner[: len(dy)], dx)
        return dx
