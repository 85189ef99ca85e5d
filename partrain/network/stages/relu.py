"""A ReLU that is not part of the stage before it."""

from __future__ import annotations

from collections.abc import Mapping

from partrain.kernels import layout, loops
from partrain.kernels.call_list import Call
from partrain.network.execution import Array, Factors, Views
from partrain.network.layers import Layer
from partrain.network.network import Network
from partrain.network.stages.gradient_buffers import GradientBuffers
from partrain.network.stages.stage import Gradient, rows_of, zeros_with_slack


class ReluStage:
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

    def share_gradients(self, buffers: GradientBuffers) -> None:
        self._dy = buffers.take("dx", self._dy)

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
        return rows_of(dx) if self._is_image else Gradient(dx, 1, 1)
