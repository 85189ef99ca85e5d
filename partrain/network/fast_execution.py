"""A network in float32 with the fast kernels: several tiles a call, activations with their channels last.

Layers are taken together where one kernel does it, or where one saves the other work: convolution, ReLU and pooling
are a stage (its backward pass goes over the list of pooling's winners), and so are a dense layer and its ReLU. The
interface is that of network.execution, and so are the results up to rounding.

Gradients between stages are rows D of numbers with two steps: that of place (i, j) and channel c of a row is at
(i·J + j)·place_step + c·channel_step. So neither side cares whether a `flatten` is between them.

Shapes: N examples, T tiles of them; H, W, C rows, columns (with the border), channels; D, E dense inputs, outputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from partrain.kernels import convolution, convolution_backward, dense, layout, loops, max_pool
from partrain.kernels.simd.vectors import LANES
from partrain.network.execution import (
    Array,
    DropoutFactors,
    Factors,
    TrainingExamples,
    Views,
    scale_rows,
    write_squared_norms,
)
from partrain.network.layers import Conv2d, Dense, Dropout, Flatten, Layer, MaxPool2d, Relu
from partrain.network.network import Network, examples_a_call
from partrain.network.normalisation import Normalisation


class _Gradient(NamedTuple):
    """The gradient at a stage's output: rows, and the steps from place to place and from channel to channel."""

    rows_ND: Array
    place_step: int
    channel_step: int


class _Stage(Protocol):
    """Layers that are computed together, with buffers for N examples."""

    border: tuple[int, int]  # that it wants around its input
    layers: tuple[Layer, ...]  # that it computes

    def forward(self, x: Array) -> Array:
        """Compute the output, and keep what `backward` needs."""

    def backward(
        self, dy: _Gradient, slots_TK: Array, tile: int, factors: Mapping[str, Factors], needs_dx: bool
    ) -> _Gradient | None:
        """Write the parameters' gradients, in slots for tiles of `tile` examples, or as factors.

        Returns
        -------
        The gradient at the input if `needs_dx`; of the first stage with parameters it is not needed.
        """


class _TrainedStage(_Stage, Protocol):
    """A stage with parameters."""

    def sum_tiles(self, scales_N: Array | None, slots_TK: Array, tile: int, factors: Mapping[str, Factors]) -> None:
        """Write the gradients of the last `backward`'s examples again, scaled; see `Execution.sum_tiles`."""


def _zeros_with_slack(shape: Sequence[int], dtype: Any = np.float32) -> Array:
    """Return zeros with LANES numbers behind them that vectors may read, on a cache line of their own."""
    size = math.prod(shape)
    numbers = np.zeros(size + LANES + 16, dtype)
    first = -numbers.ctypes.data % 64 // numbers.itemsize
    return numbers[first : first + size].reshape(shape)


def _rows_of(x_NHWC: Array) -> _Gradient:
    channels = x_NHWC.shape[3]
    return _Gradient(x_NHWC.reshape(len(x_NHWC), -1), channels, 1)


class _ConvStage:
    """A convolution, and a ReLU and a max pooling behind it where there are."""

    def __init__(
        self,
        conv: Conv2d,
        relu: Relu | None,
        pool: MaxPool2d | None,
        network: Network,
        views: Views,
        num: int,
    ) -> None:
        self.layers: tuple[Layer, ...] = tuple(layer for layer in (conv, relu, pool) if layer is not None)
        self._conv, self._pool = conv, pool
        self._rectified = relu is not None
        self.border = conv.padding
        self._weight, self._bias = (views[p.name] for p in conv.parameters)
        self._weight_start, self._bias_start = (network.tile_sums.start(p.name) for p in conv.parameters)
        self._packed_weight = np.zeros(convolution.packed_shape(self._weight.shape), np.float32)
        self._packed_bias = np.zeros(self._packed_weight.shape[2], np.float32)
        self._patch_vectors = np.zeros(convolution_backward.patch_vectors_shape(self._weight.shape), np.float32)
        F, P, Q = conv.output_shape
        self._y = _zeros_with_slack((num, P, Q, F))
        self._pooled, self._winner = self._y, np.empty((num, P, Q, F), np.int32)
        self._winner[:] = np.arange(P * Q, dtype=np.int32).reshape(P, Q, 1)
        if pool is not None:
            _, I, J = pool.output_shape
            self._pooled, self._winner = _zeros_with_slack((num, I, J, F)), np.empty((num, I, J, F), np.int32)
        C, H, W = conv.input_shape
        self._dx = _zeros_with_slack((num, H, W, C))
        self._x: Array
        self._dy: _Gradient
        self._is_first: bool

    def forward(self, x: Array) -> Array:
        N = len(x)
        self._x, y, pooled = x, self._y[:N], self._pooled[:N]
        convolution.pack_filters(self._weight, self._bias, self._packed_weight, self._packed_bias)
        convolution.conv2d_forward(x, self._packed_weight, self._packed_bias, self._conv.stride, self._rectified, y)
        if self._pool is not None:
            max_pool.max_pool_forward(y, self._pool.window, self._pool.stride, pooled, self._winner[:N])
        return pooled

    def backward(
        self, dy: _Gradient, slots_TK: Array, tile: int, factors: Mapping[str, Factors], needs_dx: bool
    ) -> _Gradient | None:
        self._dy, self._is_first = dy, not needs_dx
        return self._sum(slots_TK, tile, needs_dx)

    def sum_tiles(self, scales_N: Array | None, slots_TK: Array, tile: int, factors: Mapping[str, Factors]) -> None:
        if scales_N is not None:
            scale_rows(self._dy.rows_ND, scales_N)
        self._sum(slots_TK, tile, wants_dx=False)

    def _sum(self, slots_TK: Array, tile: int, wants_dx: bool) -> _Gradient | None:
        """Write the gradients of the last `backward`'s examples, by the same kernel with and without `wants_dx`."""
        dy = self._dy
        N, (_, P, Q) = len(dy.rows_ND), self._conv.output_shape
        kernel_size, stride = self._weight.shape[2:], self._conv.stride
        # Of a single place the gradient may come from a dense layer, whose rows have nothing behind them to read.
        if self._is_first and self._pool is None and dy.channel_step == 1 and P * Q > 1:
            y = self._y[:N]
            convolution_backward.conv2d_backward_weights(
                self._x, y, self._rectified, dy.rows_ND.reshape(y.shape), kernel_size, stride,
                tile, slots_TK, self._weight_start, self._bias_start,
            )  # fmt: skip
            return None
        dx = self._dx[: N if wants_dx else 0]
        if wants_dx:
            convolution_backward.pack_patch_vectors(self._weight, self._patch_vectors)
        convolution_backward.conv2d_backward_winners(
            self._x, self._patch_vectors, dy.rows_ND, dy.place_step, dy.channel_step, self._pooled[:N],
            self._rectified, self._winner[:N], kernel_size, stride, self.border, (P, Q),
            tile, slots_TK, self._weight_start, self._bias_start, dx,
        )  # fmt: skip
        return _rows_of(dx) if wants_dx else None


class _PoolStage:
    """A max pooling that is not behind a convolution."""

    border = (0, 0)

    def __init__(self, pool: MaxPool2d, num: int) -> None:
        self.layers: tuple[Layer, ...] = (pool,)
        self._pool = pool
        (C, I, J), (_, H, W) = pool.output_shape, pool.input_shape
        self._y, self._winner = _zeros_with_slack((num, I, J, C)), np.empty((num, I, J, C), np.int32)
        self._dx = _zeros_with_slack((num, H, W, C))

    def forward(self, x: Array) -> Array:
        y = self._y[: len(x)]
        max_pool.max_pool_forward(x, self._pool.window, self._pool.stride, y, self._winner[: len(x)])
        return y

    def backward(
        self, dy: _Gradient, slots_TK: Array, tile: int, factors: Mapping[str, Factors], needs_dx: bool
    ) -> _Gradient | None:
        N = len(dy.rows_ND)
        dx = self._dx[:N]
        max_pool.max_pool_backward_input(*dy, self._winner[:N], dx)
        return _rows_of(dx)


class _ReluStage:
    """A ReLU that is behind neither a convolution nor a dense layer."""

    border = (0, 0)

    def __init__(self, relu: Relu, num: int) -> None:
        self.layers: tuple[Layer, ...] = (relu,)
        shape = relu.output_shape
        self._y = _zeros_with_slack((num, *(shape[1:] + shape[:1])))
        self._is_image = len(shape) == 3
        self._dy = _zeros_with_slack(self._y.shape)

    def forward(self, x: Array) -> Array:
        y = self._y[: len(x)]
        loops.relu_forward(x.reshape(-1), y.reshape(-1))
        return y

    def backward(
        self, dy: _Gradient, slots_TK: Array, tile: int, factors: Mapping[str, Factors], needs_dx: bool
    ) -> _Gradient | None:
        N = len(dy.rows_ND)
        rows, dx = dy.rows_ND, self._dy[:N]
        if self._is_image and dy.channel_step != 1:
            layout.flatten_backward_input(rows, dx)
            rows = dx
        loops.relu_backward_input(rows.reshape(-1), self._y[:N].reshape(-1), dx.reshape(-1))
        return _rows_of(dx) if self._is_image else _Gradient(dx, 1, 1)


class _FlattenStage:
    """Channels last to rows in the order (channels, rows, columns)."""

    border = (0, 0)

    def __init__(self, flatten: Flatten, num: int) -> None:
        self.layers: tuple[Layer, ...] = (flatten,)
        _, H, W = flatten.input_shape
        self._num_places = H * W
        self._y = np.zeros((num, *flatten.output_shape), np.float32)

    def forward(self, x: Array) -> Array:
        y = self._y[: len(x)]
        layout.flatten_forward(x, y)
        return y

    def backward(
        self, dy: _Gradient, slots_TK: Array, tile: int, factors: Mapping[str, Factors], needs_dx: bool
    ) -> _Gradient | None:
        return _Gradient(dy.rows_ND, 1, self._num_places)


class _DenseStage:
    """A dense layer, and a ReLU behind it where there is one."""

    border = (0, 0)

    def __init__(self, layer: Dense, relu: Relu | None, views: Views, num: int) -> None:
        self.layers: tuple[Layer, ...] = (layer,) if relu is None else (layer, relu)
        self._name, self._rectified = layer.name, relu is not None
        self._weight, self._bias = (views[p.name] for p in layer.parameters)
        self._y = np.zeros((num, *layer.output_shape), np.float32)
        self._dx = np.zeros((num, *layer.input_shape), np.float32)
        self._x: Array

    def forward(self, x: Array) -> Array:
        self._x, y = x, self._y[: len(x)]
        dense.dense_forward(x, self._weight, self._bias, self._rectified, y)
        return y

    def backward(
        self, dy: _Gradient, slots_TK: Array, tile: int, factors: Mapping[str, Factors], needs_dx: bool
    ) -> _Gradient | None:
        rows_NE = dy.rows_ND
        N = len(rows_NE)
        if self._rectified:
            flat = rows_NE.reshape(-1)
            loops.relu_backward_input(flat, self._y[:N].reshape(-1), flat)
        factors[self._name].inputs_ND[:] = self._x
        factors[self._name].deltas_NE[:] = rows_NE
        if not needs_dx:
            return None
        dx = self._dx[:N]
        dense.dense_backward_input(rows_NE, self._weight, dx)
        return _Gradient(dx, 1, 1)

    def sum_tiles(self, scales_N: Array | None, slots_TK: Array, tile: int, factors: Mapping[str, Factors]) -> None:
        if scales_N is not None:
            scale_rows(factors[self._name].deltas_NE, scales_N)


class _DropoutStage:
    """Dropout, in place: what is in front of it needs no more of its output than where it is above 0."""

    border = (0, 0)

    def __init__(self, layer: Dropout, num: int) -> None:
        self.layers: tuple[Layer, ...] = (layer,)
        self.factors = DropoutFactors(layer, num, "float32")

    def forward(self, x: Array) -> Array:
        # Rows are channels last; those of one channel, or behind a `flatten`, are as the factors.
        self.factors.scale(x.reshape(len(x), -1), x.shape[3] if x.ndim == 4 else 1, 1)
        return x

    def backward(
        self, dy: _Gradient, slots_TK: Array, tile: int, factors: Mapping[str, Factors], needs_dx: bool
    ) -> _Gradient | None:
        self.factors.scale(*dy)
        return dy


class FastExecution:
    """Computes several tiles at once with the fast kernels.

    Parameters
    ----------
    network : its shapes.
    parameters : float32 vector (network.parameters.size,); read at every call, so that a change is seen.
    normalisation : of the images.
    tile : examples a tile.

    Attributes
    ----------
    stages : layers that are computed together, in order; who measures them may put others in their places.
    """

    def __init__(self, network: Network, parameters: Array, normalisation: Normalisation, tile: int) -> None:
        self.capacity = num = examples_a_call(tile)
        self._network, self._tile = network, tile
        self._example_slots_NK = np.zeros((num, network.tile_sums.size), np.float32)
        self._mean = np.array(normalisation.mean, np.float32)
        self._inverse_std = 1 / np.array(normalisation.std, np.float32)
        self.stages, self._inputs, self._first_trained = _plan(network, parameters, num)
        self._dropouts = [stage.factors for stage in self.stages if isinstance(stage, _DropoutStage)]

    def forward(
        self, images_MCHW: Array, indices_N: NDArray[np.int64], training: TrainingExamples | None = None
    ) -> Array:
        """See `execution.Execution`."""
        for factors in self._dropouts:
            factors.draw(training)
        N = len(indices_N)
        y = self._inputs[0]
        assert y is not None
        y = y[:N]
        border = self.stages[0].border
        layout.gather_normalised(images_MCHW, indices_N, self._mean, self._inverse_std, border, y)
        for stage, bordered in zip(self.stages, self._inputs, strict=True):
            if bordered is not None and bordered is not self._inputs[0]:
                (top, left), (_, H, W, _) = stage.border, y.shape
                bordered[:N, top : top + H, left : left + W] = y
                y = bordered[:N]
            y = stage.forward(y)
        return y

    def backward(self, dlogits_NE: Array, slots_TK: Array, factors: Mapping[str, Factors]) -> None:
        """See `execution.Execution`."""
        self._propagate(dlogits_NE, slots_TK, self._tile, factors)

    def measure(self, dlogits_NE: Array, factors: Mapping[str, Factors], squared_norms_NL: Array) -> None:
        """See `execution.Execution`."""
        slots_NK = self._example_slots_NK[: len(dlogits_NE)]
        self._propagate(dlogits_NE, slots_NK, 1, factors)
        write_squared_norms(self._network, slots_NK, factors, squared_norms_NL)

    def sum_tiles(self, scales_N: Array | None, slots_TK: Array, factors: Mapping[str, Factors]) -> None:
        """See `execution.Execution`."""
        for stage in self.stages:
            if stage.layers[0].parameters:
                trained = cast(_TrainedStage, stage)
                trained.sum_tiles(scales_N, slots_TK, self._tile, factors)

    def _propagate(self, dlogits_NE: Array, slots_TK: Array, tile: int, factors: Mapping[str, Factors]) -> None:
        """Hand the gradient down from stage to stage; each writes those of its parameters."""
        dy: _Gradient | None = _Gradient(dlogits_NE, 1, 1)
        for k in range(len(self.stages) - 1, self._first_trained - 1, -1):
            assert dy is not None
            dy = self.stages[k].backward(dy, slots_TK, tile, factors, needs_dx=k > self._first_trained)


def _plan(network: Network, parameters: Array, num: int) -> tuple[list[_Stage], list[Array | None], int]:
    """Group the layers into stages.

    Returns
    -------
    The stages; for each a bordered buffer for its input, where it needs one (the first always does: the images go
    there); and the place of the first stage with parameters.
    """
    views = network.parameters.views(parameters)
    layers = list(network.layers)
    stages: list[_Stage] = []
    inputs: list[Array | None] = []
    first_trained: int | None = None

    def take(kind: type[Any]) -> Any:
        return layers.pop(0) if layers and isinstance(layers[0], kind) else None

    while layers:
        layer = layers.pop(0)
        if layer.parameters and first_trained is None:
            first_trained = len(stages)
        stage: _Stage
        match layer:
            case Conv2d():
                stage = _ConvStage(layer, take(Relu), take(MaxPool2d), network, views, num)
            case MaxPool2d():
                stage = _PoolStage(layer, num)
            case Relu():
                stage = _ReluStage(layer, num)
            case Flatten():
                stage = _FlattenStage(layer, num)
            case Dense():
                stage = _DenseStage(layer, take(Relu), views, num)
            case Dropout():
                stage = _DropoutStage(layer, num)
            case _:
                raise AssertionError(layer)
        inputs.append(None)
        if not stages or stage.border != (0, 0):
            C, H, W = layer.input_shape
            inputs[-1] = _zeros_with_slack((num, H + 2 * stage.border[0], W + 2 * stage.border[1], C))
        stages.append(stage)
    assert first_trained is not None
    return stages, inputs, first_trained
