"""Group and batch normalisation, with a ReLU if one follows them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from partrain.kernels import channel_normalisation, layout, normalisation_gradients
from partrain.kernels.call_list import Call, call_now
from partrain.kernels.simd.vectors import LANES
from partrain.network.execution import Array, Factors, Views, scale_rows
from partrain.network.layers import GroupNorm, Layer, Relu
from partrain.network.network import Network
from partrain.network.stages.gradient_buffers import GradientBuffers
from partrain.network.stages.stage import Gradient, Stage, in_pieces, most_pieces, rows_of, zeros_with_slack


class GroupNormStage:
    """Group normalisation: each example has statistics of its own.

    A normalisation of images may write its output where the next stage wants it, with a border, and the gradient at its
    input where the stage before wants that: nobody else reads them.
    """

    KERNELS: tuple[object, ...] = (
        channel_normalisation.add_moments,
        channel_normalisation.finish_group_moments,
        channel_normalisation.normalise,
        normalisation_gradients.add_gradient_sums,
        normalisation_gradients.finish_group_gradient,
        normalisation_gradients.normalise_backward_input,
        normalisation_gradients.write_parameter_gradients,
        layout.copy_numbers,
        layout.flatten_backward_input,
    )
    followers = (Relu,)
    border = (0, 0)

    def __init__(self, layers: tuple[Layer, ...], network: Network, views: Views, num: int) -> None:
        self.layers = layers
        layer = layers[0]
        self._num_groups = layer.groups if isinstance(layer, GroupNorm) else 0
        self._rectified = len(layers) > 1
        shape = layer.output_shape
        self._C, self._is_image = shape[0], len(shape) == 3
        self._P = math.prod(shape[1:])
        self._weight, self._bias = (views[p.name] for p in layer.parameters[:2])
        self._starts = tuple(network.tile_sums.start(p.name) for p in layer.parameters)
        self._eps = np.array([layer.eps], np.float32)  # type: ignore[attr-defined]
        inputs = shape[1:] + shape[:1] if self._is_image else (1, 1, *shape)
        self._y, self._dx = zeros_with_slack((num, *inputs)), zeros_with_slack((num, *inputs))
        self._y_border = self._dx_border = (0, 0)
        # Vectors, and gradients with channels first, are copied: these rows are followed by LANES numbers.
        self._own_x = zeros_with_slack((0 if self._is_image else num, *inputs))
        self._own_dy = zeros_with_slack(self._y.shape)
        width = channel_normalisation.padded(self._C)
        self._mean, self._squares, self._inverse = (np.zeros((num, width), np.float32) for _ in range(3))
        self._sums = tuple(np.zeros((num, width), np.float32) for _ in range(2))
        self._coefficients = tuple(np.zeros((num, width), np.float32) for _ in range(3))
        self._most_pieces = most_pieces(*shape[1:]) if self._is_image else 1
        self._numbers = np.arange(num * self._most_pieces)
        self._x: dict[int, Array] = {}
        self._dy: Array

    def share_gradients(self, buffers: GradientBuffers) -> None:
        # With fewer channels, vectors write into the next example, where another stage may have its gradient.
        if self._C >= LANES:
            self._dx = buffers.take("dx", self._dx)

    def write_output_into(self, wide: Array, following: Stage) -> None:
        if self._may_have_border:
            self._y, self._y_border = wide, following.border

    def write_gradient_into(self, wide: Array, border: tuple[int, int]) -> None:
        """Write the gradient at the input into an array with a border from now on, if this stage can do so."""
        if self._may_have_border:
            self._dx, self._dx_border = wide, border

    @property
    def _may_have_border(self) -> bool:
        # With fewer channels, vectors would write into the border.
        return self._is_image and self._C >= LANES

    def _rows_of_set(self) -> int:
        return 1

    def _pieces_of(self, border: tuple[int, int]) -> int:
        """Return into how many pieces kernels may take images with this border apart."""
        return 1

    @property
    def output(self) -> Array:
        """The array for the outputs."""
        return self._y

    def compute_output_again(self, N: int, call: Call) -> None:
        """Write the outputs of the last forward pass of N examples once more."""
        self._apply(self._x[N], self._y[:N], call)

    def forward(self, x: Array, call: Call) -> Array:
        N, y = len(x), self._y[: len(x)]
        if not self._is_image:
            call(layout.copy_numbers, x.reshape(-1), self._own_x[:N].reshape(-1))
            x = self._own_x[:N]
        self._x[N] = x.reshape(N, -1)
        self._normalise(self._x[N], y, call)
        return y if self._is_image else y.reshape(N, -1)

    def _normalise(self, x_ND: Array, y: Array, call: Call) -> None:
        pieces = self._pieces_of((0, 0))
        numbers, rows = self._numbers[: len(x_ND) * pieces], self._rows_of_set() * pieces
        call(
            channel_normalisation.add_moments,
            in_pieces(x_ND, pieces), numbers, self._C, rows, self._mean, self._squares,
        )  # fmt: skip
        self._finish_moments(len(x_ND), call)
        self._apply(x_ND, y, call)

    def _apply(self, x_ND: Array, y: Array, call: Call) -> None:
        pieces = self._pieces_of(self._y_border)
        numbers, rows = self._numbers[: len(x_ND) * pieces], self._rows_of_set() * pieces
        call(
            channel_normalisation.normalise,
            in_pieces(x_ND, pieces), numbers, self._weight, self._bias, rows, self._rectified, self._mean,
            self._inverse, self._y_border, in_pieces(y, pieces),
        )  # fmt: skip

    def _finish_moments(self, N: int, call: Call) -> None:
        moments = self._mean[:N], self._squares[:N], self._inverse[:N]
        call(channel_normalisation.finish_group_moments, self._P, self._C, self._num_groups, self._eps, *moments)

    def _finish_gradient(self, N: int, call: Call) -> None:
        arrays = (array[:N] for array in (self._inverse, *self._sums, *self._coefficients))
        call(normalisation_gradients.finish_group_gradient, self._P, self._num_groups, self._weight, *arrays)

    def backward(
        self, dy: Gradient, slots_TK: Array, tile: int, factors: Mapping[str, Factors], needs_dx: bool, call: Call
    ) -> Gradient | None:
        N = len(dy.rows_ND)
        rows, own = dy.rows_ND, self._own_dy[:N]
        if self._is_image and dy.channel_step != 1:
            call(layout.flatten_backward_input, rows, own)
            rows = own.reshape(N, -1)
        elif not self._is_image:
            call(layout.copy_numbers, rows.reshape(-1), own.reshape(-1))
            rows = own.reshape(N, -1)
        self._dy = rows
        self._sum(slots_TK, tile, call)
        if not needs_dx:
            return None
        dx = self._dx[:N]
        self._finish_gradient(N, call)
        call(
            normalisation_gradients.normalise_backward_input,
            *self._operands(self._dx_border), *self._coefficients, self._dx_border,
            in_pieces(dx, self._pieces_of(self._dx_border)),
        )  # fmt: skip
        return rows_of(dx) if self._is_image else Gradient(dx.reshape(N, -1), 1, 1)

    def sum_tiles(self, scales_N: Array | None, slots_TK: Array, tile: int, factors: Mapping[str, Factors]) -> None:
        if scales_N is not None:
            scale_rows(self._dy, scales_N)
        self._sum(slots_TK, tile, call_now)

    def _operands(self, border: tuple[int, int] = (0, 0)) -> tuple[Any, ...]:
        """Return what the kernels of the backward pass read, for an output with a border."""
        N, pieces = len(self._dy), self._pieces_of(border)
        return (
            in_pieces(self._x[N], pieces), in_pieces(self._dy, pieces), self._numbers[: N * pieces], self._weight,
            self._bias, self._rows_of_set() * pieces, self._rectified, self._mean, self._inverse,
        )  # fmt: skip

    def _sum(self, slots_TK: Array, tile: int, call: Call) -> None:
        call(normalisation_gradients.add_gradient_sums, *self._operands(), *self._sums)
        call(
            normalisation_gradients.write_parameter_gradients,
            len(self._dy), self._rows_of_set(), tile, self._inverse, *self._sums, slots_TK, self._C, *self._starts[:2],
        )  # fmt: skip


class BatchNormStage(GroupNormStage):
    """Batch normalisation: in training by the statistics of each tile, elsewhere by the running ones.

    Attributes
    ----------
    tile : examples of a tile.
    trains : whether the next forward pass belongs to training.
    """

    KERNELS = (
        *GroupNormStage.KERNELS,
        channel_normalisation.finish_batch_moments,
        channel_normalisation.normalise_by_averages,
        normalisation_gradients.finish_batch_gradient,
        normalisation_gradients.write_statistics,
    )

    def __init__(self, layers: tuple[Layer, ...], network: Network, views: Views, num: int) -> None:
        super().__init__(layers, network, views, num)
        self._averages = tuple(views[p.name] for p in layers[0].parameters[2:])
        self.tile, self.trains = 1, False

    def _rows_of_set(self) -> int:
        return self.tile

    def _pieces_of(self, border: tuple[int, int]) -> int:
        return self._most_pieces if border == (0, 0) else 1

    def _normalise(self, x_ND: Array, y: Array, call: Call) -> None:
        if self.trains:
            super()._normalise(x_ND, y, call)
            return
        pieces = self._pieces_of(self._y_border)
        call(
            channel_normalisation.normalise_by_averages,
            in_pieces(x_ND, pieces), self._weight, self._bias, self._eps, *self._averages, self._rectified,
            self._y_border, in_pieces(y, pieces),
        )  # fmt: skip

    def _finish_moments(self, N: int, call: Call) -> None:
        call(
            channel_normalisation.finish_batch_moments,
            N, self.tile, self._P, self._C, self._eps, self._squares, self._inverse,
        )  # fmt: skip

    def _finish_gradient(self, N: int, call: Call) -> None:
        call(
            normalisation_gradients.finish_batch_gradient,
            N, self.tile, self._P, self._weight, self._inverse, *self._sums, *self._coefficients,
        )  # fmt: skip

    def _sum(self, slots_TK: Array, tile: int, call: Call) -> None:
        super()._sum(slots_TK, tile, call)
        N, starts = len(self._dy), self._starts[2:]
        call(normalisation_gradients.write_statistics, self._mean, self._squares, N, tile, self._P, slots_TK, *starts)
