"""A dense layer, with a ReLU if one follows it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from partrain.kernels import dense, layout, loops
from partrain.kernels.call_list import Call
from partrain.network.execution import Array, Factors, Views, scale_rows
from partrain.network.layers import Layer, Relu
from partrain.network.network import Network
from partrain.network.stages.stage import Gradient


class DenseStage:
    """A dense layer, with a ReLU if one follows it."""

    KERNELS = (dense.dense_forward, dense.dense_backward_input, loops.relu_backward_input, layout.copy_numbers)
    followers = (Relu,)
    border = (0, 0)

    def __init__(self, layers: tuple[Layer, ...], network: Network, views: Views, num: int) -> None:
        self.layers = layers
        layer = layers[0]
        self._name, self._rectified = layer.name, len(layers) > 1
        self._weight, self._bias = (views[p.name] for p in layer.parameters)
        self._y = np.zeros((num, *layer.output_shape), np.float32)
        self._dx = np.zeros((num, *layer.input_shape), np.float32)
        self._x: dict[int, Array] = {}

    def forward(self, x: Array, call: Call) -> Array:
        self._x[len(x)], y = x, self._y[: len(x)]
        call(dense.dense_forward, x, self._weight, self._bias, self._rectified, y)
        return y

    def backward(
        self, dy: Gradient, slots_TK: Array, tile: int, factors: Mapping[str, Factors], needs_dx: bool, call: Call
    ) -> Gradient | None:
        deltas_NE = factors[self._name].deltas_NE
        N = len(deltas_NE)
        call(layout.copy_numbers, self._x[N].reshape(-1), factors[self._name].inputs_ND.reshape(-1))
        if self._rectified:  # not in place: then LLVM's code computes several numbers at once
            call(loops.relu_backward_input, dy.rows_ND.reshape(-1), self._y[:N].reshape(-1), deltas_NE.reshape(-1))
        else:
            call(layout.copy_numbers, dy.rows_ND.reshape(-1), deltas_NE.reshape(-1))
        if not needs_dx:
            return None
        dx = self._dx[:N]
        call(dense.dense_backward_input, deltas_NE, self._weight, dx)
        return Gradient(dx, 1, 1)

    def sum_tiles(self, scales_N: Array | None, slots_TK: Array, tile: int, factors: Mapping[str, Factors]) -> None:
        if scales_N is not None:
            scale_rows(factors[self._name].deltas_NE, scales_N)
