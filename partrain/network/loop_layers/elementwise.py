"""Layers that compute each number by itself, or only change the shape."""

from __future__ import annotations

from partrain.kernels import loops
from partrain.kernels.call_list import call_now
from partrain.network.execution import Array, DropoutFactors, Views
from partrain.network.layers import Dropout, Flatten, Relu


class ReluLoops:
    KERNELS = (loops.relu_forward, loops.relu_backward_input)

    def __init__(self, layer: Relu, parameters: Views, tile: int, dtype: str) -> None:
        self.y: Array

    def forward(self, x: Array) -> Array:
        self.y = x.reshape(-1)
        loops.relu_forward(self.y, self.y)
        return x

    def backward(self, dy: Array, needs_dx: bool) -> Array | None:
        flat = dy.reshape(-1)
        loops.relu_backward_input(flat, self.y, flat)
        return dy


class FlattenLoops:
    KERNELS = ()

    def __init__(self, layer: Flatten, parameters: Views, tile: int, dtype: str) -> None:
        self.input_shape = layer.input_shape

    def forward(self, x: Array) -> Array:
        return x.reshape(len(x), -1)

    def backward(self, dy: Array, needs_dx: bool) -> Array | None:
        return dy.reshape(len(dy), *self.input_shape)


class DropoutLoops:
    KERNELS = DropoutFactors.KERNELS

    def __init__(self, layer: Dropout, parameters: Views, tile: int, dtype: str) -> None:
        self.factors = DropoutFactors(layer, tile, dtype)

    def forward(self, x: Array) -> Array:
        self.factors.scale(x.reshape(len(x), -1), 1, 1, call_now)
        return x

    def backward(self, dy: Array, needs_dx: bool) -> Array | None:
        self.factors.scale(dy.reshape(len(dy), -1), 1, 1, call_now)
        return dy
