"""Group and batch normalisation, with a ReLU if one follows them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from partrain.kernels import channel_normalisation, layout
from partrain.kernels.call_list import Call, call_now
from partrain.network.execution import Array, Factors, Views, scale_rows
from partrain.network.layers import GroupNorm, Layer, Relu
from partrain.network.network import Network
from partrain.network.stages.stage import Gradient, rows_of, zeros_with_slack


class GroupNormStage:
    """Group normalisation: each example has statistics of its own."""

    KERNELS: tuple[object, ...] = (
        channel_normalisation.normalise_forward,
        channel_normalisation.normalise_backward,
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
        self._weight, self._bias = (views[p.name] for p in layer.parameters[:2])
        self._starts = tuple(network.tile_sums.start(p.name) for p in layer.parameters)
        self._eps = np.array([layer.eps], np.float32)  # type: ignore[attr-defined]
        inputs = shape[1:] + shape[:1] if self._is_image else shape
        self._y, self._dx = zeros_with_slack((num, *inputs)), zeros_with_slack((num, *inputs))
        # Vectors, and gradients with channels first, are copied: these rows are followed by LANES numbers.
        self._own_x = zeros_with_slack((0 if self._is_image else num, *inputs))
        self._own_dy = zeros_with_slack(self._y.shape)
        width = channel_normalisation.padded(self._C)
        self._mean, self._squares, self._inverse = (np.zeros((num, width), np.float32) for _ in range(3))
        self._x: dict[int, Array] = {}
        self._dy: Array

    def _rows_of_set(self, tile: int) -> int:
        return 1

    def forward(self, x: Array, call: Call) -> Array:
        N = len(x)
        if not self._is_image:
            call(layout.copy_numbers, x.reshape(-1), self._own_x[:N].reshape(-1))
            x = self._own_x[:N]
        self._x[N] = x.reshape(N, -1)
        self._normalise(self._x[N], self._y[:N].reshape(N, -1), call)
        return self._y[:N]

    def _normalise(self, x_ND: Array, y_ND: Array, call: Call) -> None:
        call(
            channel_normalisation.normalise_forward,
            x_ND, self._weight, self._bias, self._eps, self._num_groups, self._rows_of_set(0), self._rectified,
            self._mean, self._squares, self._inverse, y_ND,
        )  # fmt: skip

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
            rows = own
        self._dy = rows
        dx = self._dx[: N if needs_dx else 0]
        self._sum(slots_TK, tile, dx, call)
        if not needs_dx:
            return None
        return rows_of(dx) if self._is_image else Gradient(dx, 1, 1)

    def sum_tiles(self, scales_N: Array | None, slots_TK: Array, tile: int, factors: Mapping[str, Factors]) -> None:
        if scales_N is not None:
            scale_rows(self._dy, scales_N)
        self._sum(slots_TK, tile, self._dx[:0], call_now)

    def _sum(self, slots_TK: Array, tile: int, dx: Array, call: Call) -> None:
        N = len(self._dy)
        call(
            channel_normalisation.normalise_backward,
            self._x[N], self._dy, self._weight, self._bias, self._num_groups, self._rows_of_set(tile),
            self._rectified, self._mean, self._inverse, tile, slots_TK, *self._starts[:2],
            dx.reshape(len(dx), self._x[N].shape[1]),
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
        channel_normalisation.normalise_by_averages,
        channel_normalisation.write_statistics,
    )

    def __init__(self, layers: tuple[Layer, ...], network: Network, views: Views, num: int) -> None:
        super().__init__(layers, network, views, num)
        self._averages = tuple(views[p.name] for p in layers[0].parameters[2:])
        self.tile, self.trains = 1, False

    def _rows_of_set(self, tile: int) -> int:
        return self.tile

    def _normalise(self, x_ND: Array, y_ND: Array, call: Call) -> None:
        if self.trains:
            super()._normalise(x_ND, y_ND, call)
            return
        call(
            channel_normalisation.normalise_by_averages,
            x_ND, self._weight, self._bias, self._eps, *self._averages, self._rectified, y_ND,
        )  # fmt: skip

    def _sum(self, slots_TK: Array, tile: int, dx: Array, call: Call) -> None:
        super()._sum(slots_TK, tile, dx, call)
        N, P = len(self._dy), self._dy.shape[1] // self._C
        starts = self._starts[2:]
        call(channel_normalisation.write_statistics, self._mean, self._squares, N, tile, P, slots_TK, *starts)
