"""The plain execution: layer by layer, with the loops that define each operation.

Shapes: N examples, T tiles of them; M images of a split; C, H, W input channels, rows, columns; D, E dense inputs,
outputs; K parameters whose gradients are summed by tile; L layers with parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from partrain.kernels import loops
from partrain.kernels.call_list import call_now
from partrain.kernels.compiler.flags import Kernel
from partrain.network.execution import (
    NORM_KERNELS,
    Array,
    DropoutFactors,
    Factors,
    TrainingExamples,
    Views,
    scale_rows,
    write_squared_norms,
)
from partrain.network.layers import Conv2d, Dense, Dropout, Flatten, Layer, MaxPool2d, Relu
from partrain.network.network import Network
from partrain.network.normalisation import Normalisation


class _LoopsLayer(Protocol):
    """A layer with buffers for a tile."""

    def forward(self, x: Array) -> Array:
        """Return the output (N, …) of the input (N, …); keep what `backward` needs."""

    def backward(self, dy: Array, needs_dx: bool) -> Array | None:
        """Return the gradient at the input if `needs_dx`; keep `dy` for the gradient of the parameters."""


class _TrainedLayer(_LoopsLayer, Protocol):
    """A layer with parameters."""

    dy: Array  # the gradient at the output that `backward` was given last

    def write_factors(self, factors: Mapping[str, Factors]) -> None:
        """Write the factors of all examples, for a layer whose gradient is exchanged as factors."""

    def add_sums(self, first: int, last: int, sums: Views) -> None:
        """Add the gradients of the examples `first` … `last`-1, for a layer whose gradient is exchanged as sums."""


class _Conv2dLoops:
    KERNELS = (loops.conv2d_forward, loops.conv2d_backward_input, loops.conv2d_backward_weights)

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
        """Do nothing: the gradient is exchanged as sums."""

    def add_sums(self, first: int, last: int, sums: Views) -> None:
        x, dy = self.x[first:last], self.dy[first:last]
        dw, db = (sums[p.name] for p in self.layer.parameters)
        loops.conv2d_backward_weights(x, dy, self.layer.stride, self.layer.padding, dw, db)


class _MaxPool2dLoops:
    KERNELS = (loops.max_pool_forward, loops.max_pool_backward_input)

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


class _ReluLoops:
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


class _FlattenLoops:
    KERNELS = ()

    def __init__(self, layer: Flatten, parameters: Views, tile: int, dtype: str) -> None:
        self.input_shape = layer.input_shape

    def forward(self, x: Array) -> Array:
        return x.reshape(len(x), -1)

    def backward(self, dy: Array, needs_dx: bool) -> Array | None:
        return dy.reshape(len(dy), *self.input_shape)


class _DenseLoops:
    KERNELS = (loops.dense_forward, loops.dense_backward_input)

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
        """Do nothing: the gradient is exchanged as factors."""


class _DropoutLoops:
    KERNELS = DropoutFactors.KERNELS

    def __init__(self, layer: Dropout, parameters: Views, tile: int, dtype: str) -> None:
        self.factors = DropoutFactors(layer, tile, dtype)

    def forward(self, x: Array) -> Array:
        self.factors.scale(x.reshape(len(x), -1), 1, 1, call_now)
        return x

    def backward(self, dy: Array, needs_dx: bool) -> Array | None:
        self.factors.scale(dy.reshape(len(dy), -1), 1, 1, call_now)
        return dy


# Each class has `KERNELS`, the kernels that it calls.
_LAYERS: dict[type[Layer], Any] = {
    Conv2d: _Conv2dLoops,
    MaxPool2d: _MaxPool2dLoops,
    Relu: _ReluLoops,
    Flatten: _FlattenLoops,
    Dense: _DenseLoops,
    Dropout: _DropoutLoops,
}


class LoopsExecution:
    """Computes one tile per call.

    Parameters
    ----------
    network : the network's shapes.
    parameters : dtype vector (network.parameters.size,); every call reads its current values.
    normalisation : the normalisation of the images.
    tile : number of examples per tile.
    dtype : "float32" or "float64"; the loops are loaded for it.
    """

    KERNELS = (loops.gather_normalised, *NORM_KERNELS)

    def __init__(
        self, network: Network, parameters: Array, normalisation: Normalisation, tile: int, dtype: str
    ) -> None:
        self.capacity = tile
        views = network.parameters.views(parameters)
        self._network = network
        self._mean = np.array(normalisation.mean, dtype)
        self._inverse_std = 1 / np.array(normalisation.std, dtype)
        self._x_NCHW = np.empty((tile, *network.input_shape), dtype)
        self._layers: list[_LoopsLayer] = [_LAYERS[type(layer)](layer, views, tile, dtype) for layer in network.layers]
        self._dropouts = [layer.factors for layer in self._layers if isinstance(layer, _DropoutLoops)]
        # No gradient is needed at the input of the first layer with parameters, nor before it.
        self._first_trained = next(k for k, layer in enumerate(network.layers) if layer.parameters)
        self._trained = [
            cast(_TrainedLayer, loops_layer)
            for loops_layer, layer in zip(self._layers, network.layers, strict=True)
            if layer.parameters
        ]
        self._example_slots_NK = np.zeros((tile, network.tile_sums.size), dtype)

    @classmethod
    def kernels(cls, layers: Iterable[Layer]) -> tuple[Kernel, ...]:
        """Return the kernels that this execution calls for these layers."""
        return (*cls.KERNELS, *dict.fromkeys(k for layer in layers for k in _LAYERS[type(layer)].KERNELS))

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
        """Compute the gradient at each layer's output, and write the factors."""
        dy: Array | None = dlogits_NE
        for k in range(len(self._layers) - 1, self._first_trained - 1, -1):
            assert dy is not None
            dy = self._layers[k].backward(dy, needs_dx=k > self._first_trained)
        for layer in self._trained:
            layer.write_factors(factors)

    def _add_sums(self, first: int, last: int, slot_K: Array) -> None:
        """Overwrite a slot with the sum of the gradients of the examples `first` … `last`-1."""
        slot_K[:] = 0
        sums = self._network.tile_sums.views(slot_K)
        for layer in self._trained:
            layer.add_sums(first, last, sums)
