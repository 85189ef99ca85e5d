"""A convolution."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from partrain.kernels import loops_convolution
from partrain.network.execution import Array, Factors, Views
from partrain.network.layers import Conv2d


class Conv2dLoops:
    KERNELS = (
        loops_convolution.conv2d_forward,
        loops_convolution.conv2d_backward_input,
        loops_convolution.conv2d_backward_weights,
    )

    def __init__(self, layer: Conv2d, parameters: Views, tile: int, dtype: str) -> None:
        self.layer = layer
        self._geometry = layer.stride, layer.padding, layer.dilation, layer.groups
        self.weight, *bias = (parameters[p.name] for p in layer.parameters)
        self.bias = bias[0] if bias else np.zeros(layer.output_shape[0], dtype)
        self._no_bias = np.empty(0, dtype)
        self.x: Array
        self.dy: Array
        self.y = np.empty((tile, *layer.output_shape), dtype)
        self.dx = np.empty((tile, *layer.input_shape), dtype)

    def forward(self, x: Array) -> Array:
        self.x, y = x, self.y[: len(x)]
        loops_convolution.conv2d_forward(x, self.weight, self.bias, *self._geometry, y)
        return y

    def backward(self, dy: Array, needs_dx: bool) -> Array | None:
        self.dy = dy
        if not needs_dx:
            return None
        dx = self.dx[: len(dy)]
        loops_convolution.conv2d_backward_input(dy, self.weight, *self._geometry, dx)
        return dx

    def write_factors(self, factors: Mapping[str, Factors]) -> None:
        """Do nothing: the gradient is exchanged as sums."""

    def add_sums(self, first: int, last: int, sums: Views) -> None:
        x, dy = self.x[first:last], self.dy[first:last]
        dw, *db = (sums[p.name] for p in self.layer.parameters)
        loops_convolution.conv2d_backward_weights(x, dy, *self._geometry, dw, db[0] if db else self._no_bias)
