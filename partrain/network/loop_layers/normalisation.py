"""Normalisation layers."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from partrain.kernels import loops_normalisation as loops
from partrain.network.execution import Array, Factors, Views
from partrain.network.layers import BatchNorm, GroupNorm, LayerNorm


class _NormLoops:
    """What normalisation layers have in common; x and y have the shape (N, C, P), or (N, D) of a layer norm."""

    def __init__(self, layer: GroupNorm | LayerNorm | BatchNorm, parameters: Views, tile: int, dtype: str) -> None:
        self.layer, self.eps = layer, layer.eps
        self.weight, self.bias = (parameters[p.name].reshape(-1) for p in layer.parameters[:2])
        self.shape: tuple[int, ...] = (layer.input_shape[0], math.prod(layer.input_shape[1:]))
        self.x: Array
        self.dy: Array
        self.y, self.dx = (np.empty((tile, *layer.input_shape), dtype) for _ in range(2))

    def rows(self, x: Array) -> Array:
        return x.reshape(len(x), *self.shape)

    def write_factors(self, factors: Mapping[str, Factors]) -> None:
        """Do nothing: the gradient is exchanged as sums."""


class _ChannelNormLoops(_NormLoops):
    """Normalisation with a factor and a summand for each channel, by statistics `mean` and `variance` (S, G)."""

    mean: Array
    variance: Array

    def normalise(self, x: Array) -> Array:
        self.x, y = x, self.y[: len(x)]
        loops.normalise_forward(self.rows(x), self.weight, self.bias, self.mean, self.variance, self.eps, self.rows(y))
        return y

    def backward(self, dy: Array, needs_dx: bool) -> Array | None:
        self.dy = dy
        if not needs_dx:
            return None
        dx = self.dx[: len(dy)]
        loops.normalise_backward_input(
            self.rows(self.x), self.rows(dy), self.weight, self.mean, self.variance, self.eps, self.rows(dx)
        )
        return dx

    def add_sums(self, first: int, last: int, sums: Views) -> None:
        x, dy = self.rows(self.x[first:last]), self.rows(self.dy[first:last])
        dw, db = (sums[p.name] for p in self.layer.parameters[:2])
        own = slice(first, last) if len(self.mean) > 1 else slice(None)
        loops.normalise_backward_weights(x, dy, self.mean[own], self.variance[own], self.eps, dw, db)


class GroupNormLoops(_ChannelNormLoops):
    KERNELS = (
        loops.group_statistics,
        loops.normalise_forward,
        loops.normalise_backward_input,
        loops.normalise_backward_weights,
    )

    def __init__(self, layer: GroupNorm, parameters: Views, tile: int, dtype: str) -> None:
        super().__init__(layer, parameters, tile, dtype)
        self._statistics = tuple(np.empty((tile, layer.groups), dtype) for _ in range(2))

    def forward(self, x: Array) -> Array:
        self.mean, self.variance = (statistic[: len(x)] for statistic in self._statistics)
        loops.group_statistics(self.rows(x), self.mean, self.variance)
        return self.normalise(x)


class BatchNormLoops(_ChannelNormLoops):
    """Batch normalisation: in training by the statistics of the tile, elsewhere by the running ones.

    Attributes
    ----------
    trains : whether the next forward pass belongs to training.
    """

    KERNELS = (
        loops.channel_means,
        loops.channel_variances,
        loops.normalise_forward,
        loops.normalise_backward_input,
        loops.normalise_backward_weights,
    )

    def __init__(self, layer: BatchNorm, parameters: Views, tile: int, dtype: str) -> None:
        super().__init__(layer, parameters, tile, dtype)
        C = layer.input_shape[0]
        self.trains = False
        self._averages = tuple(parameters[p.name].reshape(1, C) for p in layer.parameters[2:])
        self._statistics = tuple(np.empty((1, C), dtype) for _ in range(2))

    def forward(self, x: Array) -> Array:
        self.mean, self.variance = self._statistics if self.trains else self._averages
        if self.trains:
            loops.channel_means(self.rows(x), self.mean)
            loops.channel_variances(self.rows(x), self.mean, self.variance)
        return self.normalise(x)

    def add_sums(self, first: int, last: int, sums: Views) -> None:
        super().add_sums(first, last, sums)
        mean, variance = (sums[p.name] for p in self.layer.parameters[2:])
        count = (last - first) * self.shape[1]
        mean[:] = self.mean[0]
        variance[:] = self.variance[0] * self.variance.dtype.type(count / (count - 1))


class LayerNormLoops(_NormLoops):
    KERNELS = (
        loops.example_statistics,
        loops.layer_norm_forward,
        loops.layer_norm_backward_input,
        loops.layer_norm_backward_weights,
    )

    def __init__(self, layer: LayerNorm, parameters: Views, tile: int, dtype: str) -> None:
        super().__init__(layer, parameters, tile, dtype)
        self.shape = (math.prod(layer.input_shape),)
        self._mean, self._variance = (np.empty((tile, 1), dtype) for _ in range(2))

    def forward(self, x: Array) -> Array:
        N = len(x)
        self.x, y = x, self.y[:N]
        mean, variance = self._mean[:N], self._variance[:N]
        loops.example_statistics(self.rows(x), mean, variance)
        loops.layer_norm_forward(self.rows(x), self.weight, self.bias, mean, variance, self.eps, self.rows(y))
        return y

    def backward(self, dy: Array, needs_dx: bool) -> Array | None:
        self.dy = dy
        if not needs_dx:
            return None
        N = len(dy)
        dx, mean, variance = self.dx[:N], self._mean[:N], self._variance[:N]
        loops.layer_norm_backward_input(
            self.rows(self.x), self.rows(dy), self.weight, mean, variance, self.eps, self.rows(dx)
        )
        return dx

    def add_sums(self, first: int, last: int, sums: Views) -> None:
        x, dy = self.rows(self.x[first:last]), self.rows(self.dy[first:last])
        dw, db = (sums[p.name].reshape(-1) for p in self.layer.parameters)
        mean, variance = self._mean[first:last], self._variance[first:last]
        loops.layer_norm_backward_weights(x, dy, mean, variance, self.eps, dw, db)
