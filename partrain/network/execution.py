"""A network's layers with buffers and kernels: what computes tiles, forward and backward.

This is the plain form, layer by layer with the loops that define each operation; network.fast_execution has the
same interface. Buffers belong to the layer that writes them and are overwritten by its next call. A ReLU and
dropout work in place, on the buffer that they are given: no layer needs again what it gave to the next one, but for the
sign of it, which dropout leaves where its factor is not 0.

Shapes: N examples, T tiles of them; M images of a file; C, H, W input channels, rows, columns; D, E dense inputs,
outputs; K parameters whose gradients are summed by tile.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from partrain.kernels import dropout, loops, norms
from partrain.kernels.randomness import philox_key
from partrain.network.layers import Conv2d, Dense, Dropout, Flatten, Layer, MaxPool2d, Relu
from partrain.network.network import Network
from partrain.network.normalisation import Normalisation

Array = NDArray[Any]
Views = Mapping[str, Array]


@dataclass(frozen=True)
class Factors:
    """What a dense layer sends home in place of its weight gradient: a row of each for each example.

    The gradient is the sum over n of deltas[n,e] · inputs[n,d]: N·(D+E) numbers travel, not D·E a tile.
    """

    inputs_ND: Array
    deltas_NE: Array


class TrainingExamples(NamedTuple):
    """Of which examples' training a forward pass is part: what is drawn in it is a function of these and the layer."""

    seed: int
    epoch: int
    indices_N: NDArray[np.int64]  # in the training set


def write_squared_norms(
    network: Network, example_slots_NK: Array, factors: Mapping[str, Factors], squared_norms_NL: Array
) -> None:
    """Write the squared norm of each example's gradient by layer, from its own slot and its rows of the factors."""
    for k, layer in enumerate(network.trained_layers):
        if isinstance(layer, Dense):
            rows = factors[layer.name]
            norms.factor_squared_norms(rows.inputs_ND, rows.deltas_NE, squared_norms_NL, k)
        else:
            first = network.tile_sums.start(layer.parameters[0].name)
            last = first + sum(p.size for p in layer.parameters)
            norms.slot_squared_norms(example_slots_NK, first, last, squared_norms_NL, k)


def scale_rows(rows: Array, scales_N: Array) -> None:
    """Multiply what belongs to each example by its scale, in place."""
    rows *= scales_N.reshape(-1, *[1] * (rows.ndim - 1))


class Execution(Protocol):
    """Computes up to `capacity` examples at once, a whole number of tiles."""

    capacity: int

    def forward(
        self, images_MCHW: Array, indices_N: NDArray[np.int64], training: TrainingExamples | None = None
    ) -> Array:
        """Return the logits (N, E) of the images at `indices_N`; valid until the next call.

        With `training`, dropout takes place; without it, nothing is random.
        """

    def backward(self, dlogits_NE: Array, slots_TK: Array, factors: Mapping[str, Factors]) -> None:
        """Write the gradients of the tiles of the last `forward`.

        Parameters
        ----------
        dlogits_NE : gradient at the logits; may be overwritten.
        slots_TK : a row for each tile, overwritten with its sums.
        factors : for each dense layer the rows of these examples; overwritten.
        """

    def measure(self, dlogits_NE: Array, factors: Mapping[str, Factors], squared_norms_NL: Array) -> None:
        """Write the squared norm of each example's own gradient, for the examples of the last `forward`.

        Parameters
        ----------
        dlogits_NE : as for `backward`; it must stay as this leaves it until `sum_tiles` was called.
        factors : for each dense layer the rows of these examples; overwritten.
        squared_norms_NL : float64, a column for each layer with parameters; overwritten.
        """

    def sum_tiles(self, scales_N: Array | None, slots_TK: Array, factors: Mapping[str, Factors]) -> None:
        """Write what `backward` would have written, after `measure`, with each example's gradient scaled.

        Scales that are 1, or None, give the bits of `backward`.

        Parameters
        ----------
        scales_N : what each example's gradient is multiplied by, in the network's dtype; None: they are 1.
        slots_TK : as for `backward`.
        factors : as `measure` left them; the deltas are scaled in place.
        """


class _BoundLayer(Protocol):
    """A layer with buffers for a tile."""

    def forward(self, x: Array) -> Array:
        """Compute the output (N, …) of the input (N, …), and keep what `backward` needs."""

    def backward(self, dy: Array, needs_dx: bool) -> Array | None:
        """Return the gradient at the input if `needs_dx`; keep `dy` for the parameters' gradient."""


class _TrainedLayer(_BoundLayer, Protocol):
    """A layer with parameters."""

    dy: Array  # the gradient at the output that `backward` was given last

    def write_factors(self, factors: Mapping[str, Factors]) -> None:
        """Write the rows of all examples, where the gradient travels as factors."""

    def add_sums(self, first: int, last: int, sums: Views) -> None:
        """Add the gradients of the examples `first` … `last`-1, where it travels as sums."""


class _BoundConv2d:
    def __init__(self, layer: Conv2d, parameters: Views, tile: int, dtype: str) -> None:
        self.layer = layer
        self.weight, self.bias = (parameters[p.name] for p in layer.parameters)
        self.x: Array
        self.dy: Array
        self.y = np.empty((tile, *layer.output_shape), dtype)
        self.dx = np.empty((tile, *layer.input_shape), dtype)

    def forward(self, x: Array) -> Array:
        self.x, y = x, self.y[: len(x)]
        loops.conv2d_forward(x, self.weight, self.bias, self.layer.stride, self.layer.padding, y)
        return y

    def backward(self, dy: Array, needs_dx: bool) -> Array | None:
        self.dy = dy
        if not needs_dx:
            return None
        dx = self.dx[: len(dy)]
        loops.conv2d_backward_input(dy, self.weight, self.layer.stride, self.layer.padding, dx)
        return dx

    def write_factors(self, factors: Mapping[str, Factors]) -> None:
        """Do nothing: the gradient travels as sums."""

    def add_sums(self, first: int, last: int, sums: Views) -> None:
        x, dy = self.x[first:last], self.dy[first:last]
        dw, db = (sums[p.name] for p in self.layer.parameters)
        loops.conv2d_backward_weights(x, dy, self.layer.stride, self.layer.padding, dw, db)


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

    def backward(self, dy: Array, needs_dx: bool) -> Array | None:
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

    def backward(self, dy: Array, needs_dx: bool) -> Array | None:
        flat = dy.reshape(-1)
        loops.relu_backward_input(flat, self.y, flat)
        return dy


class _BoundFlatten:
    def __init__(self, layer: Flatten, parameters: Views, tile: int, dtype: str) -> None:
        self.input_shape = layer.input_shape

    def forward(self, x: Array) -> Array:
        return x.reshape(len(x), -1)

    def backward(self, dy: Array, needs_dx: bool) -> Array | None:
        return dy.reshape(len(dy), *self.input_shape)


class _BoundDense:
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
        """Do nothing: the gradient travels as factors."""


class DropoutFactors:
    """A dropout layer's factors for the examples of a call.

    Parameters
    ----------
    layer : the dropout layer.
    num : examples a call, at most.
    dtype : of the factors.
    """

    def __init__(self, layer: Dropout, num: int, dtype: str) -> None:
        self._name, self._rate = layer.name, layer.rate
        self._factors_ND = np.empty((num, math.prod(layer.output_shape)), dtype)
        self._num_drawn: int | None = None

    def draw(self, training: TrainingExamples | None) -> None:
        """Draw for these examples, or provide that nothing is dropped."""
        self._num_drawn = None
        if training is not None and self._rate > 0:
            self._num_drawn = len(training.indices_N)
            key = philox_key(seed=training.seed, purpose="dropout", epoch=training.epoch, name=self._name)
            dropout.draw_factors(key, training.indices_N, self._rate, self._factors_ND[: self._num_drawn])

    def scale(self, x_ND: Array, place_step: int, channel_step: int) -> None:
        """Multiply rows by the examples' factors, in place; see `dropout.scale_by_factors`."""
        if self._num_drawn is not None:
            dropout.scale_by_factors(self._factors_ND[: self._num_drawn], place_step, channel_step, x_ND)


class _BoundDropout:
    def __init__(self, layer: Dropout, parameters: Views, tile: int, dtype: str) -> None:
        self.factors = DropoutFactors(layer, tile, dtype)

    def forward(self, x: Array) -> Array:
        self.factors.scale(x.reshape(len(x), -1), 1, 1)
        return x

    def backward(self, dy: Array, needs_dx: bool) -> Array | None:
        self.factors.scale(dy.reshape(len(dy), -1), 1, 1)
        return dy


_BOUND: dict[type[Layer], Any] = {
    Conv2d: _BoundConv2d,
    MaxPool2d: _BoundMaxPool2d,
    Relu: _BoundRelu,
    Flatten: _BoundFlatten,
    Dense: _BoundDense,
    Dropout: _BoundDropout,
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
        self._network = network
        self._mean = np.array(normalisation.mean, dtype)
        self._inverse_std = 1 / np.array(normalisation.std, dtype)
        self._x_NCHW = np.empty((tile, *network.input_shape), dtype)
        self._layers: list[_BoundLayer] = [_BOUND[type(layer)](layer, views, tile, dtype) for layer in network.layers]
        self._dropouts = [layer.factors for layer in self._layers if isinstance(layer, _BoundDropout)]
        # Layers in front of the first one with parameters need no gradient, nor does that one's input.
        self._first_trained = next(k for k, layer in enumerate(network.layers) if layer.parameters)
        self._trained = [
            cast(_TrainedLayer, bound)
            for bound, layer in zip(self._layers, network.layers, strict=True)
            if layer.parameters
        ]
        self._example_slots_NK = np.zeros((tile, network.tile_sums.size), dtype)

    def forward(
        self, images_MCHW: Array, indices_N: NDArray[np.int64], training: TrainingExamples | None = None
    ) -> Array:
        """See `Execution`."""
        for factors in self._dropouts:
            factors.draw(training)
        y = self._x_NCHW[: len(indices_N)]
        loops.gather_normalised(images_MCHW, indices_N, self._mean, self._inverse_std, y)
        for layer in self._layers:
            y = layer.forward(y)
        return y

    def backward(self, dlogits_NE: Array, slots_TK: Array, factors: Mapping[str, Factors]) -> None:
        """See `Execution`."""
        self._propagate(dlogits_NE, factors)
        self._add_sums(0, len(dlogits_NE), slots_TK[0])

    def measure(self, dlogits_NE: Array, factors: Mapping[str, Factors], squared_norms_NL: Array) -> None:
        """See `Execution`."""
        N = len(dlogits_NE)
        self._propagate(dlogits_NE, factors)
        for n in range(N):
            self._add_sums(n, n + 1, self._example_slots_NK[n])
        write_squared_norms(self._network, self._example_slots_NK[:N], factors, squared_norms_NL)

    def sum_tiles(self, scales_N: Array | None, slots_TK: Array, factors: Mapping[str, Factors]) -> None:
        """See `Execution`."""
        if scales_N is not None:
            for layer in self._trained:
                scale_rows(layer.dy, scales_N)
                layer.write_factors(factors)
        N = len(self._trained[0].dy)
        self._add_sums(0, N, slots_TK[0])

    def _propagate(self, dlogits_NE: Array, factors: Mapping[str, Factors]) -> None:
        """Hand the gradient down to each layer, and write the factors."""
        dy: Array | None = dlogits_NE
        for k in range(len(self._layers) - 1, self._first_trained - 1, -1):
            assert dy is not None
            dy = self._layers[k].backward(dy, needs_dx=k > self._first_trained)
        for layer in self._trained:
            layer.write_factors(factors)

    def _add_sums(self, first: int, last: int, slot_K: Array) -> None:
        """Overwrite a slot with the sums of some examples."""
        slot_K[:] = 0
        sums = self._network.tile_sums.views(slot_K)
        for layer in self._trained:
            layer.add_sums(first, last, sums)
