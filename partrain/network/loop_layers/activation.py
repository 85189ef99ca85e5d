"""Activations other than ReLU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from partrain.kernels import loops_activations as loops
from partrain.network.execution import Array, Views
from partrain.network.layers import Gelu, Layer, LeakyRelu, Sigmoid, Silu, Tanh

_LOOPS: dict[type[Layer], Callable[..., Any]] = {
    LeakyRelu: loops.leaky_relu,
    Gelu: loops.gelu,
    Silu: loops.silu,
    Tanh: loops.hyperbolic_tangent,
    Sigmoid: loops.sigmoid,
}


class ActivationLoops:
    """Keeps the derivatives, and multiplies the gradient by them."""

    KERNELS = (*_LOOPS.values(), loops.gelu_by_tanh, loops.multiply_derivatives)

    def __init__(self, layer: Layer, parameters: Views, tile: int, dtype: str) -> None:
        by_tanh = isinstance(layer, Gelu) and layer.approximate == "tanh"
        self._loop = loops.gelu_by_tanh if by_tanh else _LOOPS[type(layer)]
        self._settings = (layer.slope,) if isinstance(layer, LeakyRelu) else ()
        self._y, self._derivative, self._dx = (np.empty((tile, *layer.output_shape), dtype) for _ in range(3))

    def forward(self, x: Array) -> Array:
        y, d = self._y[: len(x)], self._derivative[: len(x)]
        self._loop(x.reshape(-1), *self._settings, y.reshape(-1), d.reshape(-1))
        return y

    def backward(self, dy: Array, needs_dx: bool) -> Array | None:
        N = len(dy)
        dx = self._dx[:N]
        loops.multiply_derivatives(dy.reshape(-1), self._derivative[:N].reshape(-1), dx.reshape(-1))
        return dx
