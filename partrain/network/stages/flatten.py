"""Images to vectors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from partrain.kernels import layout
from partrain.kernels.call_list import Call
from partrain.network.execution import Array, Factors, Views
from partrain.network.layers import Layer
from partrain.network.network import Network
from partrain.network.stages.stage import Gradient


class FlattenStage:
    """Images with channels last to rows in the order (channels, rows, columns)."""

    KERNELS = (layout.flatten_forward,)
    followers = ()
    border = (0, 0)

    def __init__(self, layers: tuple[Layer, ...], network: Network, views: Views, num: int) -> None:
        self.layers = layers
        C, H, W = layers[0].input_shape
        self._num_places = H * W
        self._has_this_order = C == 1 or H * W == 1
        self._y = np.zeros((0 if self._has_this_order else num, *layers[0].output_shape), np.float32)

    def forward(self, x: Array, call: Call) -> Array:
        if self._has_this_order:
            return x.reshape(len(x), -1)
        y = self._y[: len(x)]
        call(layout.flatten_forward, x, y)
        return y

    def backward(
        self, dy: Gradient, slots_TK: Array, tile: int, factors: Mapping[str, Factors], needs_dx: bool, call: Call
    ) -> Gradient | None:
        return Gradient(dy.rows_ND, 1, self._num_places)
