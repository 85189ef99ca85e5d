"""A dense layer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from partrain.kernels import loops
from partrain.network.execution import Array, Factors, Views
from partrain.network.layers import Dense


class DenseLoops:
    KERNELS = (loops.dense_forward, loops.dense_backward_input)

    def __init__(self, layer: Dense, parameters: Views, tile: int, dtype: str) -> None:
        self.layer = layer
        self.weight, self.bias = (parameters[p.name] for p in layer.parameters)
        self.x: Array
        self.dy: Array
        self.y = np.empty((tile, *layer.output_shape), dtype)
        self.dx = np.empty((tile, *layer.input_shape), dtype)

    def forward(self, x: Array) -> Array:
        self.x, y = x, self.y[: len(x)]
        loops.dense_forward(x, self.weight, self.bias, y)
        return y

    def backward(self, dy: Array, needs_dx: bool) -> Array | None:
        self.dy = dy
        if not needs_dx:
            return None
        dx = self.dx[: len(dy)]
        loops.dense_backward_input(dy, self.weight, dx)
        return dx

    def write_factors(self, factors: Mapping[str, Factors]) -> None:
        rows = factors[self.layer.name]
        rows.inputs_ND[:] = self.x
        rows.deltas_NE[:] = self.dy

    def add_sums(self, first: int, last: int, sums: Views) -> None:
        """Do nothing: the gradient is exchanged as factors."""
