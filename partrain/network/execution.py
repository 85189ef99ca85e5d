"""Interface and helpers common to both executions of a network: gradients as factors, and dropout.

An execution is a network's layers with buffers and kernels: it computes tiles, forward and backward.
network.loops_execution is the plain one, network.fast_execution the fast one. A buffer belongs to the layer that writes
it, and the next call overwrites it. ReLU and dropout work in place on the buffer that they are given: no layer reads
its output again, except for the sign, which dropout leaves as it is where its factor is not 0.

Shapes: N examples, T tiles of them; M images of a split; C, H, W input channels, rows, columns; D, E dense inputs,
outputs; K parameters whose gradients are summed by tile; L layers with parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from partrain.kernels import dropout, norms
from partrain.kernels.call_list import Call
from partrain.kernels.randomness import philox_key
from partrain.network.layers import Dense, Dropout
from partrain.network.network import Network

Array = NDArray[Any]
Views = Mapping[str, Array]

# The kernels of `write_squared_norms`.
NORM_KERNELS = (norms.factor_squared_norms, norms.slot_squared_norms)


@dataclass(frozen=True)
class Factors:
    """A dense layer's weight gradient as its factors: inputs and output gradients (deltas), one row per example.

    dw[e,d] = sum over n of  deltas[n,e] · inputs[n,d]

    Workers write N·(D+E) numbers to shared memory in place of D·E for each tile; the reduction forms the sum.
    """

    inputs_ND: Array
    deltas_NE: Array


class TrainingExamples(NamedTuple):
    """Identifies the examples of a training pass: random numbers are a function of these values and the layer."""

    seed: int
    epoch: int
    indices_N: NDArray[np.int64]  # in the training set


def write_squared_norms(
    network: Network, example_slots_NK: Array, factors: Mapping[str, Factors], squared_norms_NL: Array
) -> None:
    """Write the squared norm of each example's gradient for each layer, from the example's slot and its factors."""
    for k, layer in enumerate(network.trained_layers):
        if isinstance(layer, Dense):
            rows = factors[layer.name]
            norms.factor_squared_norms(rows.inputs_ND, rows.deltas_NE, squared_norms_NL, k)
        else:
            first = network.tile_sums.start(layer.parameters[0].name)
            last = first + sum(p.size for p in layer.parameters)
            norms.slot_squared_norms(example_slots_NK, first, last, squared_norms_NL, k)


def scale_rows(rows: Array, scales_N: Array) -> None:
    """Multiply each example's row by its scale, in place."""
    rows *= scales_N.reshape(-1, *[1] * (rows.ndim - 1))


class Execution(Protocol):
    """Computes up to `capacity` examples per call, a whole number of tiles."""

    capacity: int

    def forward(
        self, images_MCHW: Array, indices_N: NDArray[np.int64], training: TrainingExamples | None = None
    ) -> Array:
        """Return the logits (N, E) of the images at `indices_N`; valid until the next call.

        With `training`, dropout is applied; without it, nothing is random.
        """

    def backward(self, dlogits_NE: Array, slots_TK: Array, factors: Mapping[str, Factors]) -> None:
        """Write the gradients of the last `forward`'s tiles.

        Parameters
        ----------
        dlogits_NE : gradient at the logits; may be overwritten.
        slots_TK : one row per tile; overwritten with the sum of its examples' gradients.
        factors : these examples' rows of each dense layer's factors; overwritten.
        """

    def measure(self, dlogits_NE: Array, factors: Mapping[str, Factors], squared_norms_NL: Array) -> None:
        """Write the squared norm of each example's gradient, for the examples of the last `forward`.

        Parameters
        ----------
        dlogits_NE : as for `backward`; the caller must not change it between this call and `sum_tiles`.
        factors : these examples' rows of each dense layer's factors; overwritten.
        squared_norms_NL : float64, a column for each layer with parameters; overwritten.
        """

    def sum_tiles(self, scales_N: Array | None, slots_TK: Array, factors: Mapping[str, Factors]) -> None:
        """After `measure`: write the gradients that `backward` writes, with each example's gradient scaled.

        With scales of 1, or None, they are bit for bit those of `backward`.

        Parameters
        ----------
        scales_N : factor for each example's gradient, in the network's dtype; None: all are 1.
        slots_TK : as for `backward`.
        factors : as `measure` left them; the deltas are scaled in place.
        """


class DropoutFactors:
    """A dropout layer's factors for the examples of one call.

    Parameters
    ----------
    layer : the dropout layer.
    num : the largest number of examples per call.
    dtype : the dtype of the factors.
    """

    KERNELS = (dropout.draw_factors, dropout.scale_by_factors)

    def __init__(self, layer: Dropout, num: int, dtype: str) -> None:
        self._name, self._rate = layer.name, layer.rate
        self._factors_ND = np.empty((num, math.prod(layer.output_shape)), dtype)
        self._num_drawn: int | None = None

    def draw(self, training: TrainingExamples | None) -> None:
        """Draw the factors of these examples; without `training`, `scale` will change nothing."""
        self._num_drawn = None
        if training is not None and self._rate > 0:
            self._num_drawn = len(training.indices_N)
            key = philox_key(seed=training.seed, purpose="dropout", epoch=training.epoch, name=self._name)
            dropout.draw_factors(key, training.indices_N, self._rate, self._factors_ND[: self._num_drawn])

    def scale(self, x_ND: Array, place_step: int, channel_step: int, call: Call) -> None:
        """Make the call that multiplies the examples' rows by their factors; see `dropout.scale_by_factors`."""
        if self._num_drawn is not None:
            call(dropout.scale_by_factors, self._factors_ND[: self._num_drawn], place_step, channel_step, x_ND)
