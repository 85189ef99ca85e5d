"""What a stage is: layers that are computed together, with activations that have channels last.

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
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from partrain.kernels.call_list import Call
from partrain.kernels.channel_normalisation import CHUNK
from partrain.kernels.simd.vectors import LANES
from partrain.network.execution import Array, Factors
from partrain.network.layers import Layer

# Of a piece (`most_pieces`): smaller ones cost more time in calls than they save.
LEAST_PLACES = 256


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


@runtime_checkable
class WritesBorder(Protocol):
    """A stage that can write its output where the next one wants it, with a border."""

    def write_output_into(self, wide: Array, following: Stage) -> None:
        """Write the output into an array with the border of the following stage from now on, if that is possible."""


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


def most_pieces(H: int, W: int) -> int:
    """Return into how many pieces of whole rows images may be cut, for kernels that compute each place by itself.

    Pieces of whole chunks leave sums over chunks as they are (channel_normalisation.add_moments).
    """
    for pieces in range(H, 1, -1):
        places = H // pieces * W
        if H % pieces == 0 and places % CHUNK == 0 and places >= LEAST_PLACES:
            return pieces
    return 1


def in_pieces(x: Array, pieces: int) -> Array:
    """Return images (N, H, W, C), or rows (N, D), as `pieces` smaller ones each."""
    N = len(x)
    if x.ndim == 2:
        return x.reshape(N * pieces, -1)
    return x.reshape(N * pieces, x.shape[1] // pieces, *x.shape[2:])


def rows_of(x_NHWC: Array) -> Gradient:
    """Return a gradient of images (N, H, W, C) with channels last."""
    channels = x_NHWC.shape[3]
    return Gradient(x_NHWC.reshape(len(x_NHWC), -1), channels, 1)
