"""Pooling that does not follow a convolution."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from partrain.kernels import avg_pool, max_pool
from partrain.kernels.call_list import Call
from partrain.network.execution import Array, Factors, Views
from partrain.network.layers import AvgPool2d, GlobalAvgPool2d, Layer, MaxPool2d
from partrain.network.network import Network
from partrain.network.stages.convolution_passes import geometry_of
from partrain.network.stages.gradient_buffers import GradientBuffers
from partrain.network.stages.stage import Gradient, rows_of, zeros_with_slack


class MaxPoolStage:
    """A max pooling that does not follow a convolution."""

    KERNELS = (max_pool.max_pool_forward, max_pool.max_pool_backward_input)
    followers = ()
    border = (0, 0)

    def __init__(self, layers: tuple[Layer, ...], network: Network, views: Views, num: int) -> None:
        (pool,) = self.layers = layers
        assert isinstance(pool, MaxPool2d)
        self._pool = pool
        (C, I, J), (_, H, W) = pool.output_shape, pool.input_shape
        self._y, self._winner = zeros_with_slack((num, I, J, C)), np.empty((num, I, J, C), np.int32)
        self._dx = zeros_with_slack((num, H, W, C))

    def share_gradients(self, buffers: GradientBuffers) -> None:
        self._dx = buffers.take("dx", self._dx)

    def forward(self, x: Array, call: Call) -> Array:
        y = self._y[: len(x)]
        call(max_pool.max_pool_forward, x, *geometry_of(self._pool), y, self._winner[: len(x)])
        return y

    def backward(
        self, dy: Gradient, slots_TK: Array, tile: int, factors: Mapping[str, Factors], needs_dx: bool, call: Call
    ) -> Gradient | None:
        N = len(dy.rows_ND)
        dx = self._dx[:N]
        call(max_pool.max_pool_backward_input, *dy, self._winner[:N], dx)
        return rows_of(dx)


class AvgPoolStage:
    """The mean of each window, or of the whole plane."""

    KERNELS = (avg_pool.avg_pool_forward, avg_pool.avg_pool_backward_input)
    followers = ()
    border = (0, 0)

    def __init__(self, layers: tuple[Layer, ...], network: Network, views: Views, num: int) -> None:
        (pool,) = self.layers = layers
        assert isinstance(pool, AvgPool2d | GlobalAvgPool2d)
        (C, P, Q), (_, H, W) = pool.output_shape, pool.input_shape
        self._geometry = geometry_of(pool) if isinstance(pool, AvgPool2d) else ((H, W), (H, W), (0, 0))
        self._y, self._dx = zeros_with_slack((num, P, Q, C)), zeros_with_slack((num, H, W, C))

    def share_gradients(self, buffers: GradientBuffers) -> None:
        self._dx = buffers.take("dx", self._dx)

    def forward(self, x: Array, call: Call) -> Array:
        y = self._y[: len(x)]
        call(avg_pool.avg_pool_forward, x, *self._geometry, y)
        return y

    def backward(
        self, dy: Gradient, slots_TK: Array, tile: int, factors: Mapping[str, Factors], needs_dx: bool, call: Call
    ) -> Gradient | None:
        dx = self._dx[: len(dy.rows_ND)]
        call(avg_pool.avg_pool_backward_input, *dy, *self._geometry, self._y.shape[1:3], dx)
        return rows_of(dx)
