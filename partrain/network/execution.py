"""A network's layers with buffers and kernels: what computes tiles, forward and backward.

This is the plain form, layer by layer with the loops that define each operation; network.fast_execution has the
same interface. Buffers belong to the layer that writes them and are overwritten by its next call. A ReLU works in
place, on the buffer that it is given: no layer needs again what it gave to the next one.

Shapes: N examples, T tiles of them; M images of a file; C, H, W input channels, rows, columns; D, E dense inputs,
outputs; K parameters whose gradients are summed by tile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from partrain.kernels import loops
from partrain.network.layers import Conv2d, Dense, Flatten, Layer, MaxPool2d, Relu
from partrain.network.network import Network
from partrain.normalisation import Normalisation

Array = NDArray[Any]
Views = Mapping[str, Array]


@dataclass(frozen=True)
class Factors:
    """What a dense layer sends home in place of its weight gradient: a row of each for each example.

    The gradient is the sum over n of deltas[n,e] · inputs[n,d]: N·(D+E) numbers travel, not D·E a tile.
    """

    inputs_ND: Array
    deltas_NE: Array


class Execution(Protocol):
    """Computes up to `capacity` examples at once, a whole number of tiles."""

    capacity: int

    def forward(self, images_MCHW: Array, indices_N: NDArray[np.int64]) -> Array:
        """Return the logits (N, E) of the examples at `indices_N`; valid until the next call."""

    def backward(self, dlogits_NE: Array, slots_TK: Array, factors: Mapping[str, Factors]) -> None:
        """Write the gradients of the tiles of the last `forward`.

        Parameters
        ----------
        dlogits_NE : gradient at the logits; may be overwritten.
        slots_TK : a row for each tile, overwritten with its sums.
        factors : for each dense layer the rows of these examples; overwritten.
        """


@dataclass(frozen=True)
class GradientTarget:
    """Where a tile's gradient goes: views of the tile's slot, and the rows of its examples in the factors."""

    sums: Views
    factors: Mapping[str, Factors]


class _BoundLayer(Protocol):
    """A layer with buffers for a tile."""

    def forward(self, x: Array) -> Array:
        """Compute the output (N, …) of the input (N, …), and keep what `backward` needs."""

    def backward(self, dy: Array, target: GradientTarget, needs_dx: bool) -> Array | None:
        """Put the parameters' gradient into `target`; return the gradient at the input if `needs_dx`."""


class _BoundConv2d:
    def __init__(self, layer: Conv2d, parameters: Views, tile: int, dtype: str) -> None:
        self.layer = layer
        self.weight, self.bias = (parameters[p.name] for p in layer.parameters)
        self.x: Array
        self.y = np.empty((tile, *layer.output_shape), dtype)
        self.dx = np.empty((tile, *layer.input_shape), dtype)

    def forward(self, x: Array) -> Array:
        self.x, y = x, self.y[: len(x)]
        loops.conv2d_forward(x, self.weight, self.bias, self.layer.stride, self.layer.padding, y)
        return y

    def backward(self, dy: Array, target: GradientTarget, needs_dx: bool) -> Array | None:
        dw, db = (target.sums[p.name] for p in self.layer.parameters)
        loops.conv2d_backward_weights(self.x, dy, self.layer.stride, self.layer.padding, dw, db)
        if not needs_dx:
            return None
        dx = self.dx[: len(dy)]
        loops.conv2d_backward_input(dy, self.weight, self.layer.stride, self.layer.padding, dx)
        return dx


class _BoundMaxPool2d:
    def __init__(self, layer: MaxPool2d, parameters: Views, tile: int, dtype: str) -> None:
        self.layer = layer
        self.y = np.empty((tile, *layer.output_shape), dtype)
        self.winner = np.empty(self.y.shape, np.int64)
        self.dx = np.empty((tile, *layer.input_shape), dtype)

    def forward(self, x: Array) -> Array:
        y, winner = self.y[: len(x)], self.winner[: len(x)]
        loops.max_pool_forward(x, self.layer.window, self.layer.stride, y, winner)
        return y

    def backward(self, dy: Array, target: GradientTarget, needs_dx: bool) -> Array | None:
        dx = self.dx[: len(dy)]
        loops.max_pool_backward_input(dy, self.winner[: len(dy)], dx)
        return dx


class _BoundRelu:
    def __init__(self, layer: Relu, parameters: Views, tile: int, dtype: str) -> None:
        self.y: Array

    def forward(self, x: Array) -> Array:
        self.y = x.reshape(-1)
        loops.relu_forward(self.y, self.y)
        return x

    def backward(self, dy: Array, target: GradientTarget, needs_dx: bool) -> Array | None:
        flat = dy.reshape(-1)
        loops.relu_backward_input(flat, self.y, flat)
        return dy


class _BoundFlatten:
    def __init__(self, layer: Flatten, parameters: Views, tile: int, dtype: str) -> None:
        self.input_shape = layer.input_shape

    def forward(self, x: Array) -> Array:
        return x.reshape(len(x), -1)

    def backward(self, dy: Array, target: GradientTarget, needs_dx: bool) -> Array | None:
        return dy.reshape(len(dy), *self.input_shape)


class _BoundDense:
    def __init__(self, layer: Dense, parameters: Views, tile: int, dtype: str) -> None:
        self.layer = layer
        self.weight, self.bias = (parameters[p.name] for p in layer.parameters)
        self.x: Array
        self.y = np.empty((tile, *layer.output_shape), dtype)
        self.dx = np.empty((tile, *layer.input_shape), dtype)

    def forward(self, x: Array) -> Array:
        self.x, y = x, self.y[: len(x)]
        loops.dense_forward(x, self.weight, self.bias, y)
        return y

    def backward(self, dy: Array, target: GradientTarget, needs_dx: bool) -> Array | None:
        factors = target.factors[self.layer.name]
        factors.inputs_ND[:] = self.x
        factors.deltas_NE[:] = dy
        if not needs_dx:
            return None
        dx = self.dx[: len(dy)]
        loops.dense_backward_input(dy, self.weight, dx)
        return dx


_BOUND: dict[type[Layer], Any] = {
    Conv2d: _BoundConv2d,
    MaxPool2d: _BoundMaxPool2d,
    Relu: _BoundRelu,
    Flatten: _BoundFlatten,
    Dense: _BoundDense,
}


class LoopsExecution:
    """Computes a tile at a time with the loops that define each operation.

    Parameters
    ----------
    network : its shapes.
    parameters : dtype vector (network.parameters.size,); read at every call, so that a change is seen.
    normalisation : of the images.
    tile : examples a tile.
    dtype : "float32" or "float64"; the loops are loaded for it.
    """

    def __init__(
        self, network: Network, parameters: Array, normalisation: Normalisation, tile: int, dtype: str
    ) -> None:
        self.capacity = tile
        views = network.parameters.views(parameters)
        self._tile_sums = network.tile_sums
        self._mean = np.array(normalisation.mean, dtype)
        self._inverse_std = 1 / np.array(normalisation.std, dtype)
        self._x_NCHW = np.empty((tile, *network.input_shape), dtype)
        self._layers: list[_BoundLayer] = [_BOUND[type(layer)](layer, views, tile, dtype) for layer in network.layers]
        # Layers in front of the first one with parameters need no gradient, nor does that one's input.
        self._first_trained = next(k for k, layer in enumerate(network.layers) if layer.parameters)

    def forward(self, images_MCHW: Array, indices_N: NDArray[np.int64]) -> Array:
        """See `Execution`."""
        y = self._x_NCHW[: len(indices_N)]
        loops.gather_normalised(images_MCHW, indices_N, self._mean, self._inverse_std, y)
        for layer in self._layers:
            y = layer.forward(y)
        return y

    def backward(self, dlogits_NE: Array, slots_TK: Array, factors: Mapping[str, Factors]) -> None:
        """See `Execution`."""
        slots_TK[:] = 0
        target = GradientTarget(self._tile_sums.views(slots_TK[0]), factors)
        dy: Array | None = dlogits_NE
        for k in range(len(self._layers) - 1, self._first_trained - 1, -1):
            assert dy is not None
            dy = self._layers[k].backward(dy, target, needs_dx=k > self._first_trained)
