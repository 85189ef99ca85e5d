"""The sum of two branches."""

from __future__ import annotations

import numpy as np

from partrain.kernels import residual_loops
from partrain.network.execution import Array
from partrain.network.layers import Residual
from partrain.network.loop_layers.sequence import LoopsSequence


class ResidualLoops:
    """y = body(x) + shortcut(x). Layers may work in place, so each branch gets copies of its own."""

    KERNELS = (residual_loops.add,)

    def __init__(self, layer: Residual, body: LoopsSequence, shortcut: LoopsSequence, tile: int, dtype: str) -> None:
        self._body, self._shortcut = body, shortcut
        self._y = np.empty((tile, *layer.output_shape), dtype)
        self._dx = np.empty((tile, *layer.input_shape), dtype)

    def forward(self, x: Array) -> Array:
        y = self._y[: len(x)]
        of_body, of_shortcut = self._body.forward(x.copy()), self._shortcut.forward(x.copy())
        residual_loops.add(of_body.reshape(-1), of_shortcut.reshape(-1), y.reshape(-1))
        return y

    def backward(self, dy: Array, needs_dx: bool) -> Array | None:
        of_body, of_shortcut = (branch.backward(dy.copy(), needs_dx) for branch in (self._body, self._shortcut))
        if not needs_dx:
            return None
        assert of_body is not None
        assert of_shortcut is not None
        dx = self._dx[: len(dy)]
        residual_loops.add(of_body.reshape(-1), of_shortcut.reshape(-1), dx.reshape(-1))
        return dx
