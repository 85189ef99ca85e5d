"""The stages of the fast execution: layers that are computed together, with activations that have channels last.

Layers form a stage if one kernel computes them, or if one saves work for the other: a convolution with ReLU and max
pooling (its backward pass goes over the list of pooling's winners), and a dense layer with its ReLU.

A stage makes its calls of kernels through `call`, which may only record them: then they are made later, and often. So
a stage does nothing else with the numbers, and the arrays that it hands on always stay where they are. What `backward`
needs of `forward` is kept by the number of examples, which need not be that of the last call.

Gradients between stages are rows D of numbers with two steps: the number of position (i, j) and channel c is at
(i·J + j)·place_step + c·channel_step of its row. So neither side depends on whether a `flatten` is between them.

Shapes: N examples, T tiles of them; H, W, C input rows, columns (with the border), channels; F filters; P, Q output
rows, columns; I, J rows, columns after pooling; D, E dense inputs, outputs; K parameters whose gradients are summed by
tile.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from partrain.kernels import convolution_backward, convolution_weights, dense, layout, loops, max_pool, patch_vectors
from partrain.kernels.call_list import Call, call_now
from partrain.kernels.compiler.flags import Kernel
from partrain.kernels.simd.vectors import LANES
from partrain.network.convolution_passes import forward_pass
from partrain.network.execution import Array, DropoutFactors, Factors, Views, scale_rows
from partrain.network.layers import Conv2d, Dense, Dropout, Flatten, Layer, MaxPool2d, Relu
from partrain.network.network import Network


class Gradient(NamedTuple):
    """The gradient at a stage's output: rows, and the steps from position to position and from channel to channel."""

    rows_ND: Array
    place_step: int
    channel_step: int


class Stage(Protocol):
    """Layers that are computed together, with buffers for `num` examples.

    Attributes
    ----------
    layers : that it computes.
    border : rows and columns of zeros that it needs at each side of its input.
    """

    border: tuple[int, int]
    layers: tuple[Layer, ...]

    def forward(self, x: Array, call: Call) -> Array:
        """Make the calls that compute the output; return the array for it. Keep what `backward` needs."""

    def backward(
        self, dy: Gradient, slots_TK: Array, tile: int, factors: Mapping[str, Factors], needs_dx: bool, call: Call
    ) -> Gradient | None:
        """Make the calls that write the parameters' gradients, in slots for tiles of `tile` examples, or as factors.

        Returns
        -------
        The gradient at the input if `needs_dx`; the first stage with parameters does not compute it.
        """


class TrainedStage(Stage, Protocol):
    """A stage with parameters."""

    def sum_tiles(self, scales_N: Array | None, slots_TK: Array, tile: int, factors: Mapping[str, Factors]) -> None:
        """Write the gradients of the last `backward`'s examples again, scaled; see `Execution.sum_tiles`."""


def zeros_with_slack(shape: Sequence[int], dtype: Any = np.float32) -> Array:
    """Return zeros on cache lines of their own, followed by LANES numbers that a vector may read."""
    size = math.prod(shape)
    numbers = np.zeros(size + LANES + 16, dtype)
    first = -numbers.ctypes.data % 64 // numbers.itemsize
    return numbers[first : first + size].reshape(shape)


def _rows_of(x_NHWC: Array) -> Gradient:
    channels = x_NHWC.shape[3]
    return Gradient(x_NHWC.reshape(len(x_NHWC), -1), channels, 1)


class _ConvStage:
    """A convolution, with a ReLU and a max pooling if they follow it."""

    KERNELS = (
        patch_vectors.pack_patch_vectors,
        convolution_backward.conv2d_backward_winners,
        convolution_weights.conv2d_backward_weights,
    )
    followers = (Relu, MaxPool2d)

    def __init__(self, layers: tuple[Layer, ...], network: Network, views: Views, num: int) -> None:
        conv, *following = self.layers = layers
        assert isinstance(conv, Conv2d)
        pool = next((layer for layer in following if isinstance(layer, MaxPool2d)), None)
        self._conv, self._pool = conv, pool
        self._rectified = any(isinstance(layer, Relu) for layer in following)
        self.border = conv.padding
        self._weight, self._bias = (views[p.name] for p in conv.parameters)
        self._weight_start, self._bias_start = (network.tile_sums.start(p.name) for p in conv.parameters)
        self._forward_pass = forward_pass(conv)(conv, pool, self._rectified, self._weight, self._bias)
        self._patch_vectors = zeros_with_slack(patch_vectors.patch_vectors_shape(self._weight.shape))
        F, P, Q = conv.output_shape
        self._y = zeros_with_slack((0 if self._forward_pass.is_fused else num, P, Q, F))
        if pool is None:
            self._pooled, self._winner = self._y, np.empty((num, P, Q, F), np.int32)
            self._winner[:] = np.arange(P * Q, dtype=np.int32).reshape(P, Q, 1)
        else:
            _, I, J = pool.output_shape
            self._pooled, self._winner = zeros_with_slack((num, I, J, F)), np.empty((num, I, J, F), np.int32)
        C, H, W = conv.input_shape
        self._dx = zeros_with_slack((num, H, W, C))
        self._x: dict[int, Array] = {}
        self._dy: Gradient
        self._is_first: bool

    def forward(self, x: Array, call: Call) -> Array:
        N = len(x)
        self._x[N], pooled = x, self._pooled[:N]
        self._forward_pass(x, self._y[:N], pooled, self._winner[:N], call)
        return pooled

    def backward(
        self, dy: Gradient, slots_TK: Array, tile: int, factors: Mapping[str, Factors], needs_dx: bool, call: Call
    ) -> Gradient | None:
        self._dy, self._is_first = dy, not needs_dx
        return self._sum(slots_TK, tile, needs_dx, call)

    def sum_tiles(self, scales_N: Array | None, slots_TK: Array, tile: int, factors: Mapping[str, Factors]) -> None:
        if scales_N is not None:
            scale_rows(self._dy.rows_ND, scales_N)
        self._sum(slots_TK, tile, False, call_now)

    def _sum(self, slots_TK: Array, tile: int, wants_dx: bool, call: Call) -> Gradient | None:
        """Write the gradients of the last `backward`'s examples, by the same kernel with and without `wants_dx`."""
        dy = self._dy
        N, (_, P, Q) = len(dy.rows_ND), self._conv.output_shape
        kernel_size, stride = self._weight.shape[2:], self._conv.stride
        # The gradient of a single position may come from a dense layer, whose rows are not followed by LANES numbers.
        if self._is_first and self._pool is None and dy.channel_step == 1 and P * Q > 1:
            y = self._y[:N]
            call(
                convolution_weights.conv2d_backward_weights,
                self._x[N], y, self._rectified, dy.rows_ND.reshape(y.shape), kernel_size, stride,
                tile, slots_TK, self._weight_start, self._bias_start,
            )  # fmt: skip
            return None
        dx = self._dx[: N if wants_dx else 0]
        if wants_dx:
            call(patch_vectors.pack_patch_vectors, self._weight, self._patch_vectors)
        call(
            convolution_backward.conv2d_backward_winners,
            self._x[N], self._patch_vectors, dy.rows_ND, dy.place_step, dy.channel_step, self._pooled[:N],
            self._rectified, self._winner[:N], kernel_size, stride, self.border, (P, Q),
            tile, slots_TK, self._weight_start, self._bias_start, dx,
        )  # fmt: skip
        return _rows_of(dx) if wants_dx else None


class _PoolStage:
    """A max pooling that does not follow a convolution."""

    KERNELS = (max_pool.max_pool_forward, max_pool.max_pool_backward_input)
    followers = ()
    border = (0, 0)

    def __init__(self, layers: tuple[Layer, ...], network: Network, views: Views, num: int) -> None:
        (pool,) = self.layers = layers
        assert isinstance(pool, MaxPool2d)
        self._pool = pool
        (C, I, J), (_, H, W) = pool.output_shape, pool.input_shape
        self._y, self._winner = zeros_with_slack((num, I, J, C)), np.empty((num, I, J, C), np.int32)
        self._dx = zeros_with_slack((num, H, W, C))

    def forward(self, x: Array, call: Call) -> Array:
        y = self._y[: len(x)]
        call(max_pool.max_pool_forward, x, self._pool.window, self._pool.stride, y, self._winner[: len(x)])
        return y

    def backward(
        self, dy: Gradient, slots_TK: Array, tile: int, factors: Mapping[str, Factors], needs_dx: bool, call: Call
    ) -> Gradient | None:
        N = len(dy.rows_ND)
        dx = self._dx[:N]
        call(max_pool.max_pool_backward_input, *dy, self._winner[:N], dx)
        return _rows_of(dx)


class _ReluStage:
    """A ReLU that follows neither a convolution nor a dense layer."""

    KERNELS = (loops.relu_forward, loops.relu_backward_input, layout.flatten_backward_input)
    followers = ()
    border = (0, 0)

    def __init__(self, layers: tuple[Layer, ...], network: Network, views: Views, num: int) -> None:
        self.layers = layers
        shape = layers[0].output_shape
        self._y = zeros_with_slack((num, *(shape[1:] + shape[:1])))
        self._is_image = len(shape) == 3
        self._dy = zeros_with_slack(self._y.shape)

    def forward(self, x: Array, call: Call) -> Array:
        y = self._y[: len(x)]
        call(loops.relu_forward, x.reshape(-1), y.reshape(-1))
        return y

    def backward(
        self, dy: Gradient, slots_TK: Array, tile: int, factors: Mapping[str, Factors], needs_dx: bool, call: Call
    ) -> Gradient | None:
        N = len(dy.rows_ND)
        rows, dx = dy.rows_ND, self._dy[:N]
        if self._is_image and dy.channel_step != 1:
            call(layout.flatten_backward_input, rows, dx)
            rows = dx
        call(loops.relu_backward_input, rows.reshape(-1), self._y[:N].reshape(-1), dx.reshape(-1))
        return _rows_of(dx) if self._is_image else Gradient(dx, 1, 1)


class _FlattenStage:
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


class _DenseStage:
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


class DropoutStage:
    """Dropout, in place: the stage before it only needs to know where its own output is above 0."""

    KERNELS = DropoutFactors.KERNELS
    followers = ()
    border = (0, 0)

    def __init__(self, layers: tuple[Layer, ...], network: Network, views: Views, num: int) -> None:
        (layer,) = self.layers = layers
        assert isinstance(layer, Dropout)
        self.factors = DropoutFactors(layer, num, "float32")

    def forward(self, x: Array, call: Call) -> Array:
        # Images have channels last; rows after a `flatten` have the order of the factors.
        self.factors.scale(x.reshape(len(x), -1), x.shape[3] if x.ndim == 4 else 1, 1, call)
        return x

    def backward(
        self, dy: Gradient, slots_TK: Array, tile: int, factors: Mapping[str, Factors], needs_dx: bool, call: Call
    ) -> Gradient | None:
        self.factors.scale(*dy, call)
        return dy


# By the layer that begins the stage. A class has `KERNELS`, the kernels that it calls (besides those of a convolution's
# forward pass), and `followers`, the kinds of layers that become part of the stage if they follow, in this order.
_STAGES: dict[type[Layer], Any] = {
    Conv2d: _ConvStage,
    MaxPool2d: _PoolStage,
    Relu: _ReluStage,
    Flatten: _FlattenStage,
    Dense: _DenseStage,
    Dropout: DropoutStage,
}


def stage_kernels(layers: Iterable[Layer]) -> Iterator[Kernel]:
    """Yield the kernels that the stages call which begin with these layers."""
    for layer in layers:
        yield from _STAGES[type(layer)].KERNELS
        if isinstance(layer, Conv2d):
            yield from forward_pass(layer).KERNELS


def make_stages(network: Network, views: Views, num: int) -> list[Stage]:
    """Group the layers of a network into stages.

    Parameters
    ----------
    network : the network's shapes.
    views : views of the parameters, by name.
    num : the largest number of examples in a call.
    """
    waiting = list(network.layers)
    stages: list[Stage] = []
    while waiting:
        layers = [waiting.pop(0)]
        kind = _STAGES[type(layers[0])]
        for follower in kind.followers:
            if waiting and isinstance(waiting[0], follower):
                layers.append(waiting.pop(0))
        stages.append(kind(tuple(layers), network, views, num))
    return stages
