"""The forward passes of a convolution in the fast execution: the direct one, and Toom-Cook where that is faster.

Shapes: N examples; C, H, W input channels, rows, columns (with the border); F filters; R, S filter rows, columns; P, Q
output rows, columns; I, J the same after pooling.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

import numpy as np

from partrain.kernels import (
    convolution,
    max_pool,
    plane_convolution,
    toom_cook_convolution,
    toom_cook_convolution_1d,
)
from partrain.kernels.call_list import Call
from partrain.kernels.compiler.flags import Kernel
from partrain.kernels.lanes import with_lanes
from partrain.kernels.simd.vectors import LANES
from partrain.network.execution import Array
from partrain.network.layers import AvgPool2d, Conv2d, MaxPool2d
from partrain.network.stages.stage import zeros_with_slack
from partrain.network.stages.vector_lanes import lanes_of


class ForwardPass(Protocol):
    """Computes a convolution, then max(y, 0) if it is `rectified`, then its pooling, or none.

    Attributes
    ----------
    is_toom_cook : whether it has fewer multiplications than the formula.
    is_fused : whether the outputs before pooling are never written; then `y_NPQF` is (0, P, Q, F).
    filters : the filters in the order in which they are read; each call writes them first.
    """

    KERNELS: ClassVar[tuple[Kernel, ...]]  # with vectors of LANES; `kernels_of` has those that are called
    is_toom_cook: ClassVar[bool]
    is_fused: bool
    filters: Array

    def __init__(self, conv: Conv2d, pool: MaxPool2d | None, rectified: bool, weight: Array, bias: Array) -> None: ...

    def __call__(self, x_NHWC: Array, y_NPQF: Array, pooled_NIJF: Array, winner_NIJF: Array, call: Call) -> None:
        """Make the calls that write the outputs and, if there is a pooling, the maxima and their positions p·Q + q."""

    @classmethod
    def kernels_of(cls, conv: Conv2d) -> tuple[Kernel, ...]:
        """Return the kernels that the pass of a layer calls."""
        return tuple(with_lanes(kernel, lanes_of(conv)) for kernel in cls.KERNELS)


# Window, stride and padding of the pooling that needs no outputs in memory.
_POOLED_IN_REGISTERS = ((2, 2), (2, 2), (0, 0))


def geometry_of(pool: MaxPool2d | AvgPool2d) -> tuple[tuple[int, int], ...]:
    """Return the window, the stride, and the padding."""
    return pool.window, pool.stride, pool.padding


class _DirectPass(ForwardPass):
    KERNELS: ClassVar[tuple[Kernel, ...]] = (
        convolution.pack_filters,
        convolution.conv2d_forward,
        max_pool.max_pool_forward,
    )
    is_toom_cook, is_fused = False, False

    def __init__(self, conv: Conv2d, pool: MaxPool2d | None, rectified: bool, weight: Array, bias: Array) -> None:
        self._conv, self._pool, self._rectified, self._weight, self._bias = conv, pool, rectified, weight, bias
        self.filters = zeros_with_slack(with_lanes(convolution.packed_shape, lanes_of(conv))(weight.shape))
        self._packed_bias = np.zeros(self.filters.shape[2], np.float32)

    def __call__(self, x_NHWC: Array, y_NPQF: Array, pooled_NIJF: Array, winner_NIJF: Array, call: Call) -> None:
        pack_filters, conv2d_forward, max_pool_forward = self.kernels_of(self._conv)[:3]
        call(pack_filters, self._weight, self._bias, self.filters, self._packed_bias)
        call(conv2d_forward, x_NHWC, self.filters, self._packed_bias, self._conv.stride, self._rectified, y_NPQF)
        if self._pool is not None:
            call(max_pool_forward, y_NPQF, *geometry_of(self._pool), pooled_NIJF, winner_NIJF)


class _OneChannelPass(_DirectPass):
    """Windows of 2x2 are pooled at once, with the bits of the direct pass: lenet5.yaml takes 3.4 µs instead of 4.7."""

    KERNELS = (*_DirectPass.KERNELS, plane_convolution.conv2d_pooled_forward)

    def __init__(self, conv: Conv2d, pool: MaxPool2d | None, rectified: bool, weight: Array, bias: Array) -> None:
        super().__init__(conv, pool, rectified, weight, bias)
        self.is_fused = pool is not None and geometry_of(pool) == _POOLED_IN_REGISTERS

    def __call__(self, x_NHWC: Array, y_NPQF: Array, pooled_NIJF: Array, winner_NIJF: Array, call: Call) -> None:
        if not self.is_fused:
            super().__call__(x_NHWC, y_NPQF, pooled_NIJF, winner_NIJF, call)
            return
        conv2d_pooled_forward = self.kernels_of(self._conv)[3]
        call(conv2d_pooled_forward, x_NHWC, self._weight, self._bias, self._rectified, pooled_NIJF, winner_NIJF)


class _ToomCookPass(ForwardPass):
    """Windows of 2x2 are pooled in registers, which saves a fifth of the time of a layer with few channels."""

    is_toom_cook = True
    _transformed_shape = staticmethod(toom_cook_convolution.transformed_shape)

    def __init__(self, conv: Conv2d, pool: MaxPool2d | None, rectified: bool, weight: Array, bias: Array) -> None:
        self._conv, self._rectified, self._weight, self._bias = conv, rectified, weight, bias
        self.is_fused = pool is not None and geometry_of(pool) == _POOLED_IN_REGISTERS
        self._separate_pool = None if self.is_fused else pool
        self.filters = zeros_with_slack(with_lanes(self._transformed_shape, lanes_of(conv))(weight.shape))
        self._padded_bias = np.zeros(max(len(bias), LANES), np.float32)

    def __call__(self, x_NHWC: Array, y_NPQF: Array, pooled_NIJF: Array, winner_NIJF: Array, call: Call) -> None:
        transform_filters, conv2d_forward, max_pool_forward = self.kernels_of(self._conv)
        call(transform_filters, self._weight, self._bias, self.filters, self._padded_bias)
        call(
            conv2d_forward,
            x_NHWC,
            self.filters,
            self._padded_bias,
            self._rectified,
            y_NPQF,
            pooled_NIJF,
            winner_NIJF,
        )
        if self._separate_pool is not None:
            call(max_pool_forward, y_NPQF, *geometry_of(self._separate_pool), pooled_NIJF, winner_NIJF)


class _ToomCookPass1d(_ToomCookPass):
    KERNELS = (
        toom_cook_convolution_1d.transform_filters_1d,
        toom_cook_convolution_1d.conv2d_forward_1d,
        max_pool.max_pool_forward,
    )
    _transformed_shape = staticmethod(toom_cook_convolution_1d.transformed_shape)


class _ToomCookPass3x3(_ToomCookPass):
    KERNELS = (
        toom_cook_convolution.transform_filters_3x3,
        toom_cook_convolution.conv2d_forward_3x3,
        max_pool.max_pool_forward,
    )


class _ToomCookPass5x5(_ToomCookPass):
    KERNELS = (
        toom_cook_convolution.transform_filters_5x5,
        toom_cook_convolution.conv2d_forward_5x5,
        max_pool.max_pool_forward,
    )


def forward_pass(conv: Conv2d, input_share: float = 0.5) -> type[ForwardPass]:
    """Choose the forward pass of a layer, from its shapes alone: another one has other bits.

    Parameters
    ----------
    input_share : the share of the inputs that are expected not to be zero.
    """
    (F, P, Q), (_, C, R, S) = conv.output_shape, conv.parameters[0].shape
    if (
        conv.stride == (1, 1)
        and (S == 5 or (R, S) == (3, 3))
        and min(P, Q) >= toom_cook_convolution.TILE
        and C * R * S * min(1.0, 2 * input_share) >= _LEAST_TERMS
        and conv.padding[0] <= R // 2
        and conv.padding[1] <= S // 2
    ):
        toom_cook, cost = _cheapest_toom_cook(conv, C * R * S * min(1.0, 2 * input_share))
        if 1.1 * cost < P * Q * R * S * C * _eighths(F):
            return toom_cook
    lanes = lanes_of(conv)
    if C == 1 and conv.stride == (1, 1) and lanes <= Q // 2:
        products = with_lanes(plane_convolution.products, lanes)(F, P, Q)
        if products < P * Q * -(-F // lanes) * lanes:  # both have the same bits
            return _OneChannelPass
    return _DirectPass


def sums_by_toom_cook(conv: Conv2d) -> bool:
    """Choose how filter gradients are summed, from shapes and the following layers alone: see forward_pass."""
    (F, P, Q), (_, C, R, S) = conv.output_shape, conv.parameters[0].shape
    rows, columns = (-(-size // toom_cook_convolution.TILE) for size in (P, Q))
    return (
        conv.groups == 1
        and conv.stride == conv.dilation == (1, 1)
        and (R, S) == (3, 3)
        and max(conv.padding) <= 1
        and min(P, Q) >= toom_cook_convolution.TILE
        and P * Q * conv.gradient_share >= _LEAST_PLACES
        and min(C, F) >= _LEAST_CHANNELS
        and 16 * rows * columns <= 1.5 * P * Q
    )


# An example's sums have as many terms that are not zero; with fewer, their rounding errors may be too large. Behind a
# ReLU, the largest error in 7·10⁶ sums of 49 terms was half of the bound that is named below, of 32 terms 1.2 of it.
_LEAST_PLACES = 49
# With fewer, the transforms take too much of the time.
_LEAST_CHANNELS = 16


# Half of them may be zeros. With fewer terms in a sum, or a border wider than half a filter, an output may be much
# smaller than its neighbours in the tile, whose rounding errors it shares. With as many, the largest error in 10⁶
# outputs, also behind a ReLU, was a quarter of the bound 1e-6 · sqrt(K) · sum|x||w|; in the layers of configs/ it is a
# twentieth.
_LEAST_TERMS = 72
# In two dimensions, 5x5 needs more: with as many, the largest error in 3·10⁵ outputs behind a ReLU was 0.18 of it,
# with half as many 0.44.
_LEAST_TERMS_OF_5X5 = 200


def _cheapest_toom_cook(conv: Conv2d, terms: float) -> tuple[type[_ToomCookPass], float]:
    """Return the pass and its time in multiply-adds of 8 numbers; `terms` of a sum are expected not to be zero.

    The times are fitted on a Zen 4: to 2,300 shapes, of which the median is off by 10 %, and for 5x5 in two dimensions
    to 10, of which the worst is off by 15 %.
    """
    (F, P, Q), (_, C, R, S) = conv.output_shape, conv.parameters[0].shape
    rows, columns = (-(-size // toom_cook_convolution.TILE) for size in (P, Q))
    c, f = _eighths(C), _eighths(F)
    if S == 3:
        return _ToomCookPass3x3, rows * columns * (36 * C * f + 210 * (c + f))
    one_dimension = 8 * P * columns * R * C * f + 35 * columns * ((P + R - 1) * c + P * f)
    two_dimensions = rows * columns * (72 * C * f + 370 * (c + f))
    if R == S and terms >= _LEAST_TERMS_OF_5X5 and 1.1 * two_dimensions < one_dimension:
        return _ToomCookPass5x5, two_dimensions
    return _ToomCookPass1d, one_dimension


def _eighths(size: int) -> int:
    return -(-size // 8)
