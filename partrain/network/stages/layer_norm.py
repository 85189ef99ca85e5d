"""Layer normalisation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from partrain.kernels import layer_normalisation, layout
from partrain.kernels.call_list import Call, call_now
from partrain.network.execution import Array, Factors, Views, scale_rows
from partrain.network.layers import Layer, LayerNorm
from partrain.network.network import Network
from partrain.network.stages.gradient_buffers import GradientBuffers
from partrain.network.stages.stage import Gradient, rows_of, zeros_with_slack


class LayerNormStage:
    """Layer normalisation; its factors and summands are copied to the order of the activations."""

    KERNELS = (
        layer_normalisation.layer_norm_forward,
        layer_normalisation.layer_norm_backward,
        layout.flatten_backward_input,
    )
    followers = ()
    border = (0, 0)

    def __init__(self, layers: tuple[Layer, ...], network: Network, views: Views, num: int) -> None:
        (layer,) = self.layers = layers
        assert isinstance(layer, LayerNorm)
        shape = layer.output_shape
        self._C, self._is_image = shape[0] if len(shape) == 3 else 1, len(shape) == 3
        inputs = shape[1:] + shape[:1] if self._is_image else shape
        self._weight, self._bias = (views[p.name] for p in layer.parameters)
        self._starts = tuple(network.tile_sums.start(p.name) for p in layer.parameters)
        self._eps = np.array([layer.eps], np.float32)
        self._ordered = tuple(zeros_with_slack((1, *inputs)) for _ in range(2))
        self._y, self._dx, self._own_dy = (zeros_with_slack((num, *inputs)) for _ in range(3))
        self._mean, self._inverse = (np.zeros((num, 1), np.float32) for _ in range(2))
        self._x: dict[int, Array] = {}
        self._dy: Array

    def share_gradients(self, buffers: GradientBuffers) -> None:
        self._dx = buffers.take("dx", self._dx)

    def _factors_and_summands(self, call: Call) -> tuple[Array, Array]:
        if not self._is_image:
            return self._weight, self._bias
        weight, bias = self._ordered
        call(layout.flatten_backward_input, self._weight.reshape(1, -1), weight)
        call(layout.flatten_backward_input, self._bias.reshape(1, -1), bias)
        return weight.reshape(-1), bias.reshape(-1)

    def forward(self, x: Array, call: Call) -> Array:
        N = len(x)
        self._x[N], y = x.reshape(N, -1), self._y[:N]
        weight, bias = self._factors_and_summands(call)
        call(
            layer_normalisation.layer_norm_forward,
            self._x[N], weight, bias, self._eps, self._mean[:N], self._inverse[:N], y.reshape(N, -1),
        )  # fmt: skip
        return y

    def backward(
        self, dy: Gradient, slots_TK: Array, tile: int, factors: Mapping[str, Factors], needs_dx: bool, call: Call
    ) -> Gradient | None:
        N = len(dy.rows_ND)
        self._dy = dy.rows_ND
        if self._is_image and dy.channel_step != 1:
            call(layout.flatten_backward_input, dy.rows_ND, self._own_dy[:N])
            self._dy = self._own_dy[:N].reshape(N, -1)
        dx = self._dx[: N if needs_dx else 0]
        self._sum(slots_TK, tile, dx, call)
        if not needs_dx:
            return None
        return rows_of(dx) if self._is_image else Gradient(dx, 1, 1)

    def sum_tiles(self, scales_N: Array | None, slots_TK: Array, tile: int, factors: Mapping[str, Factors]) -> None:
        if scales_N is not None:
            scale_rows(self._dy, scales_N)
        self._sum(slots_TK, tile, self._dx[:0], call_now)

    def _sum(self, slots_TK: Array, tile: int, dx: Array, call: Call) -> None:
        N = len(self._dy)
        weight = self._ordered[0].reshape(-1) if self._is_image else self._weight  # ordered by `forward`
        call(
            layer_normalisation.layer_norm_backward,
            self._x[N], self._dy, weight, self._mean[:N], self._inverse[:N], self._C, tile, slots_TK, *self._starts,
            dx.reshape(len(dx), self._x[N].shape[1]),
        )  # fmt: skip
