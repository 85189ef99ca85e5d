"""A convolution with what follows it, if its backward pass goes over a list of winners."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from partrain.kernels import convolution_backward, convolution_weights, patch_vectors
from partrain.kernels.call_list import Call, call_now
from partrain.kernels.compiler.flags import Kernel
from partrain.kernels.lanes import with_lanes
from partrain.network.execution import Array, Factors, Views, scale_rows
from partrain.network.layers import Conv2d, Layer, MaxPool2d, Relu
from partrain.network.network import Network
from partrain.network.stages.convolution_passes import forward_pass
from partrain.network.stages.gradient_buffers import GradientBuffers
from partrain.network.stages.stage import Gradient, rows_of, zeros_with_slack
from partrain.network.stages.vector_lanes import lanes_of


class ConvStage:
    """A convolution with a bias, and a ReLU and a max pooling if they follow it."""

    KERNELS = ()
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
        patch_vectors_shape = with_lanes(patch_vectors.patch_vectors_shape, lanes_of(conv))
        self._patch_vectors = zeros_with_slack(patch_vectors_shape(self._weight.shape))
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

    def share_gradients(self, buffers: GradientBuffers) -> None:
        self._dx = buffers.take("dx", self._dx)

    @staticmethod
    def kernels_of(conv: Conv2d) -> tuple[Kernel, ...]:
        """Return the kernels that depend on the layer."""
        return (*forward_pass(conv).kernels_of(conv), *_backward_kernels(conv))

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
        pack_patch_vectors, conv2d_backward_winners, conv2d_backward_weights = _backward_kernels(self._conv)
        N, (_, P, Q) = len(dy.rows_ND), self._conv.output_shape
        kernel_size, stride = self._weight.shape[2:], self._conv.stride
        # The gradient of a single position may come from a dense layer, whose rows are not followed by LANES numbers.
        if self._is_first and self._pool is None and dy.channel_step == 1 and P * Q > 1:
            y = self._y[:N]
            call(
                conv2d_backward_weights,
                self._x[N], y, self._rectified, dy.rows_ND.reshape(y.shape), kernel_size, stride,
                tile, slots_TK, self._weight_start, self._bias_start,
            )  # fmt: skip
            return None
        dx = self._dx[: N if wants_dx else 0]
        if wants_dx:
            call(pack_patch_vectors, self._weight, self._patch_vectors)
        call(
            conv2d_backward_winners,
            self._x[N], self._patch_vectors, dy.rows_ND, dy.place_step, dy.channel_step, self._pooled[:N],
            self._rectified, self._winner[:N], kernel_size, stride, self.border, (P, Q),
            tile, slots_TK, self._weight_start, self._bias_start, dx,
        )  # fmt: skip
        return rows_of(dx) if wants_dx else None


def _backward_kernels(conv: Conv2d) -> tuple[Kernel, ...]:
    kernels = (
        patch_vectors.pack_patch_vectors,
        convolution_backward.conv2d_backward_winners,
        convolution_weights.conv2d_backward_weights,
    )
    return tuple(with_lanes(kernel, lanes_of(conv)) for kernel in kernels)
