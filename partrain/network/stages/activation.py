"""Activations other than ReLU."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from partrain.kernels import activations, layout
from partrain.kernels.call_list import Call
from partrain.kernels.compiler.flags import Kernel
from partrain.network.execution import Array, Factors, Views
from partrain.network.layers import Activation, Gelu, Layer, LeakyRelu, Sigmoid, Silu, Tanh
from partrain.network.network import Network
from partrain.network.stages.gradient_buffers import GradientBuffers
from partrain.network.stages.stage import Gradient, rows_of, zeros_with_slack

_FORWARD: dict[type[Layer], Kernel] = {
    LeakyRelu: activations.leaky_relu_forward,
    Gelu: activations.gelu_forward,
    Silu: activations.silu_forward,
    Tanh: activations.tanh_forward,
    Sigmoid: activations.sigmoid_forward,
}


class ActivationStage:
    """Keeps the derivatives, and multiplies the gradient by them."""

    KERNELS = (activations.multiply_derivatives, layout.flatten_backward_input)
    followers = ()
    border = (0, 0)

    def __init__(self, layers: tuple[Layer, ...], network: Network, views: Views, num: int) -> None:
        (layer,) = self.layers = layers
        shape = layer.output_shape
        self._is_image = len(shape) == 3
        assert isinstance(layer, Activation)
        (self._kernel,) = self.kernels_of(layer)
        self._settings = (np.array([layer.slope], np.float32),) if isinstance(layer, LeakyRelu) else ()
        ordered = shape[1:] + shape[:1]
        self._y, self._derivative, self._dx = (zeros_with_slack((num, *ordered)) for _ in range(3))

    def share_gradients(self, buffers: GradientBuffers) -> None:
        self._dx = buffers.take("dx", self._dx)

    @staticmethod
    def kernels_of(layer: Activation) -> tuple[Kernel, ...]:
        """Return the kernels that depend on the layer."""
        if isinstance(layer, Gelu) and layer.approximate == "tanh":
            return (activations.gelu_by_tanh_forward,)
        return (_FORWARD[type(layer)],)

    def forward(self, x: Array, call: Call) -> Array:
        y, d = self._y[: len(x)], self._derivative[: len(x)]
        call(self._kernel, x.reshape(-1), *self._settings, y.reshape(-1), d.reshape(-1))
        return y

    def backward(
        self, dy: Gradient, slots_TK: Array, tile: int, factors: Mapping[str, Factors], needs_dx: bool, call: Call
    ) -> Gradient | None:
        N = len(dy.rows_ND)
        rows, dx = dy.rows_ND, self._dx[:N]
        if self._is_image and dy.channel_step != 1:
            call(layout.flatten_backward_input, rows, dx)
            rows = dx
        call(activations.multiply_derivatives, rows.reshape(-1), self._derivative[:N].reshape(-1), dx.reshape(-1))
        return rows_of(dx) if self._is_image else Gradient(dx, 1, 1)
