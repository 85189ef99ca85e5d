"""A convolution by itself: what follows it needs all its outputs, as a normalisation does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from partrain.kernels import layout, tap_convolution, toom_cook_weights
from partrain.kernels.call_list import Call, call_now
from partrain.kernels.compiler.flags import Kernel
from partrain.kernels.lanes import with_lanes
from partrain.kernels.simd.vectors import LANES
from partrain.network.execution import Array, Factors, Views, scale_rows
from partrain.network.layers import Conv2d, Layer
from partrain.network.network import Network
from partrain.network.parameters import Parameter
from partrain.network.stages.channel_norm import GroupNormStage
from partrain.network.stages.convolution_passes import forward_pass, sums_by_toom_cook
from partrain.network.stages.gradient_buffers import GradientBuffers
from partrain.network.stages.stage import Gradient, in_pieces, most_pieces, rows_of, zeros_with_slack
from partrain.network.stages.tap_lists import (
    TapList,
    forward_lists,
    gradient_border,
    gradient_lists,
    is_depthwise,
    is_plain,
)
from partrain.network.stages.vector_lanes import lanes_of


class PlainConvStage:
    """A convolution with any groups and dilation; every output has a gradient.

    The gradient at the input is a convolution itself: of the gradient at the output, with the filters turned around.
    """

    KERNELS = (layout.place_gradient, tap_convolution.sum_over_places)
    followers = ()

    def __init__(self, layers: tuple[Layer, ...], network: Network, views: Views, num: int) -> None:
        (conv,) = self.layers = layers
        assert isinstance(conv, Conv2d)
        self._conv, self.border = conv, conv.padding
        F, P, Q = conv.output_shape
        C, H, W = conv.input_shape
        weight = views[conv.parameters[0].name]
        bias = views[conv.parameters[1].name] if conv.has_bias else np.zeros(F, np.float32)
        starts = [network.tile_sums.start(p.name) for p in conv.parameters]
        self._weight_start, self._bias_start = starts[0], starts[1] if conv.has_bias else None
        # A depthwise convolution with several filters for each channel reads copies of the channels.
        self._times = F // C if is_depthwise(conv) else 1
        rows, columns = conv.padding
        copies = num if self._times > 1 else 0
        self._repeated = zeros_with_slack((copies, H + 2 * rows, W + 2 * columns, C * self._times))
        self._dx_of_copies = zeros_with_slack((copies, H, W, C * self._times))
        self._pieces = most_pieces(H, W) if _is_by_place(conv) else 1
        piece = _piece_of(conv, self._pieces)
        self._forward_pass = _forward_pass(piece, weight, bias)
        self._input_pass = _input_pass(piece, weight)
        if isinstance(self._forward_pass, _WholePass) and isinstance(self._input_pass, _FlippedPass):
            self._input_pass.share_filters(self._forward_pass)
        self._y, self._dx = zeros_with_slack((num, P, Q, F)), zeros_with_slack((num, H, W, C))
        up, left = self._dy_border = self._input_pass.border
        self._placed_dy = zeros_with_slack((num, P + 2 * up, Q + 2 * left, F))
        self._sum_lists = list(forward_lists(piece, self._dy_border)), list(forward_lists(piece))
        # Of the gradients of a tile, whose examples may come in several calls of a kernel.
        if sums_by_toom_cook(conv):
            self._weight_sums = [zeros_with_slack((toom_cook_weights.sums_size(C, F),))]
        else:
            sums_size = with_lanes(tap_convolution.sums_size, lanes_of(conv))
            sizes = [sums_size(part.num_outputs, part.taps.size) for part in self._sum_lists[0]]
            self._weight_sums = [zeros_with_slack((size,)) for size in sizes]
        self._bias_sums = np.zeros(F + LANES, np.float32)
        self._numbers = np.arange(num * self._pieces)
        self._normalisation: GroupNormStage | None = None
        self._x: dict[int, Array] = {}
        self._dy: Gradient

    def share_gradients(self, buffers: GradientBuffers) -> None:
        self._dx = buffers.take("dx", self._dx)
        # The border is part of the role: it stays zero.
        self._placed_dy = buffers.take(("placed", self._dy_border), self._placed_dy)

    def normalise_input_again(self, normalisation: GroupNormStage, buffers: GradientBuffers) -> None:
        """Let the backward pass compute the input once more, from what a normalisation has kept.

        Then the input need not be kept, which would take longer: to write it to memory, and to read it from there.
        """
        if self._times == 1:
            self._normalisation = normalisation
            buffers.add_own(normalisation.output)

    @property
    def gradient_buffer(self) -> tuple[Array, tuple[int, int]]:
        """Where the gradient at the output is wanted, and the border there; `backward` takes it from elsewhere, too."""
        return self._placed_dy, self._dy_border

    @staticmethod
    def kernels_of(conv: Conv2d) -> Iterator[Kernel]:
        """Yield the kernels that depend on the layer."""
        yield from _kernels_of_forward_pass(conv)
        yield from _kernels_of_input_pass(conv)
        yield _sum_kernel(conv)
        if is_depthwise(conv):
            yield from (layout.repeat_channels, layout.sum_repeated_channels)

    def forward(self, x: Array, call: Call) -> Array:
        N = len(x)
        if self._times > 1:
            call(layout.repeat_channels, x, self._times, self._repeated[:N])
            x = self._repeated[:N]
        self._x[N], y = x, self._y[:N]
        self._forward_pass(in_pieces(x, self._pieces), in_pieces(y, self._pieces), call)
        return y

    def backward(
        self, dy: Gradient, slots_TK: Array, tile: int, factors: Mapping[str, Factors], needs_dx: bool, call: Call
    ) -> Gradient | None:
        self._dy = dy
        N = len(dy.rows_ND)
        placed = self._place(dy, needs_dx, call)
        if not self._conv.is_frozen:
            self._sum(placed, slots_TK, tile, call)
        if not needs_dx:
            return None
        dx = self._dx[:N]
        if self._times > 1:
            self._input_pass(placed, self._dx_of_copies[:N], call)
            call(layout.sum_repeated_channels, self._dx_of_copies[:N], self._times, dx)
        else:
            self._input_pass(in_pieces(placed, self._pieces), in_pieces(dx, self._pieces), call)
        return rows_of(dx)

    def sum_tiles(self, scales_N: Array | None, slots_TK: Array, tile: int, factors: Mapping[str, Factors]) -> None:
        if scales_N is not None:
            scale_rows(self._dy.rows_ND, scales_N)
        self._sum(self._place(self._dy, False, call_now), slots_TK, tile, call_now)

    def _place(self, dy: Gradient, needs_border: bool, call: Call) -> Array:
        """Return the gradient as images, with a border if that is needed, and followed by LANES numbers."""
        N, (F, P, Q) = len(dy.rows_ND), self._conv.output_shape
        if self._dy_border != (0, 0) and dy.rows_ND.shape[1] == self._placed_dy[0].size:  # it was written there
            return dy.rows_ND.reshape(N, *self._placed_dy.shape[1:])
        border = self._dy_border if needs_border else (0, 0)
        # The gradient of a single position may come from a dense layer, whose rows are not followed by LANES numbers.
        if border == (0, 0) and dy.channel_step == 1 and P * Q > 1:
            return dy.rows_ND.reshape(N, P, Q, F)
        placed = self._placed_dy[:N]
        call(layout.place_gradient, *dy, self._dy_border, placed)
        return placed

    def _sum(self, dy: Array, slots_TK: Array, tile: int, call: Call) -> None:
        """Write the gradients of the parameters; `dy` is from `_place`."""
        is_placed = dy.shape == self._placed_dy[: len(dy)].shape
        border = self._dy_border if is_placed else (0, 0)
        if self._normalisation is not None:
            self._normalisation.compute_output_again(len(dy), call)
        kernel, pieces = _sum_kernel(self._conv), self._pieces
        x, dy = in_pieces(self._x[len(dy)], pieces), in_pieces(dy, pieces)
        examples = self._numbers[: len(dy)], len(dy), tile * pieces
        if kernel is toom_cook_weights.conv2d_backward_weights_2d:
            call(kernel, x, dy, border, *examples, self._weight_sums[0], slots_TK, self._weight_start)
        else:
            for part, sums in zip(self._sum_lists[0 if is_placed else 1], self._weight_sums, strict=True):
                call(
                    kernel, x, dy, *examples, part.taps, part.patches, part.places, part.num_places, part.num_outputs,
                    part.sources, part.step, sums, slots_TK, self._weight_start,
                )  # fmt: skip
        if self._bias_start is not None:
            call(tap_convolution.sum_over_places, dy, border, *examples, self._bias_sums, slots_TK, self._bias_start)


def _is_by_place(conv: Conv2d) -> bool:
    """Return whether each output is computed from the input at the same place, and nothing else."""
    return is_plain(conv) and conv.parameters[0].shape[2:] == conv.stride == (1, 1) and conv.padding == (0, 0)


def _piece_of(conv: Conv2d, pieces: int) -> Conv2d:
    """Return the convolution of one of the pieces that rows are cut into."""
    (C, H, W), (F, P, Q) = conv.input_shape, conv.output_shape
    return replace(conv, input_shape=(C, H // pieces, W), output_shape=(F, P // pieces, Q)) if pieces > 1 else conv


def _sum_kernel(conv: Conv2d) -> Kernel:
    depthwise: Kernel = tap_convolution.depthwise_backward_weights_over_taps
    any_groups: Kernel = tap_convolution.conv2d_backward_weights_over_taps
    by_toom_cook: Kernel = toom_cook_weights.conv2d_backward_weights_2d
    if sums_by_toom_cook(conv):
        return by_toom_cook
    return with_lanes(depthwise if is_depthwise(conv) else any_groups, lanes_of(conv))


class _PassOverTaps:
    """Convolves with lists of taps, one after the other."""

    def __init__(self, conv: Conv2d, lists: Iterable[TapList], border: tuple[int, int], w: Array, b: Array) -> None:
        self.border = border
        self._kernels, self._weight, self._bias = _kernels_over_taps(conv), w, b
        self._lists = []
        packed_shape = with_lanes(tap_convolution.packed_shape, lanes_of(conv))
        for part in lists:
            w_BkL = zeros_with_slack(packed_shape(len(part.sources), part.num_outputs))
            self._lists.append((part, w_BkL, np.zeros(w_BkL.shape[::2], np.float32)))

    def __call__(self, x: Array, y: Array, call: Call) -> None:
        pack_taps, convolve = self._kernels
        for part, w_BkL, b_BL in self._lists:
            call(
                pack_taps, self._weight, part.sources, part.step, self._bias, part.first,
                part.num_outputs, w_BkL, b_BL,
            )  # fmt: skip
            call(
                convolve, x, w_BkL, b_BL, part.taps, part.patches, part.places, part.num_places, part.num_outputs,
                y,
            )  # fmt: skip


class _FlippedPass:
    """Convolves the gradient with the filters turned around, by the passes of a convolution that is not grouped."""

    def __init__(self, conv: Conv2d, flipped: Conv2d, weight: Array) -> None:
        self.border = flipped.padding
        self._weight, self._flipped = weight, np.zeros(flipped.parameters[0].shape, np.float32)
        self._pass = _WholePass(flipped, self._flipped, np.zeros(len(self._flipped), np.float32))

    def share_filters(self, forward_pass: _WholePass) -> None:
        """Write the filters where the forward pass has written its own, if they have the same shape.

        The less memory all filters take, the more of it is in the cache.
        """
        self._pass.share_filters(forward_pass)

    def __call__(self, x: Array, y: Array, call: Call) -> None:
        call(tap_convolution.flip_filters, self._weight, self._flipped)
        self._pass(x, y, call)


class _WholePass:
    """The forward pass of a convolution that is not grouped, without what may follow."""

    def __init__(self, conv: Conv2d, weight: Array, bias: Array) -> None:
        self._pass = forward_pass(conv)(conv, None, False, weight, bias)
        self._no_winners = np.empty((0, *conv.output_shape), np.int32)

    def share_filters(self, other: _WholePass) -> None:
        """Write the filters where another pass, which runs at other times, writes its own of the same shape."""
        if self._pass.filters.shape == other._pass.filters.shape:
            self._pass.filters = other._pass.filters

    def __call__(self, x: Array, y: Array, call: Call) -> None:
        self._pass(x, y, y, self._no_winners, call)


def _forward_pass(conv: Conv2d, weight: Array, bias: Array) -> _WholePass | _PassOverTaps:
    if is_plain(conv):
        return _WholePass(conv, weight, bias)
    return _PassOverTaps(conv, forward_lists(conv), (0, 0), weight, bias)


def _kernels_of_forward_pass(conv: Conv2d) -> tuple[Kernel, ...]:
    return forward_pass(conv).kernels_of(conv) if is_plain(conv) else _kernels_over_taps(conv)


def _input_pass(conv: Conv2d, weight: Array) -> _FlippedPass | _PassOverTaps:
    flipped = _flipped(conv)
    if flipped is not None:
        return _FlippedPass(conv, flipped, weight)
    no_bias = np.zeros(conv.output_shape[0] if is_depthwise(conv) else conv.input_shape[0], np.float32)
    return _PassOverTaps(conv, gradient_lists(conv), gradient_border(conv), weight, no_bias)


def _kernels_of_input_pass(conv: Conv2d) -> tuple[Kernel, ...]:
    flipped = _flipped(conv)
    if flipped is None:
        return _kernels_over_taps(conv)
    return (tap_convolution.flip_filters, *forward_pass(flipped).kernels_of(flipped))


def _kernels_over_taps(conv: Conv2d) -> tuple[Kernel, Kernel]:
    """Return the kernels that pack filters and convolve."""
    depthwise: Kernel = tap_convolution.depthwise_over_taps
    any_groups: Kernel = tap_convolution.conv2d_over_taps
    kernels = tap_convolution.pack_taps, depthwise if is_depthwise(conv) else any_groups
    pack_taps, convolve = (with_lanes(kernel, lanes_of(conv)) for kernel in kernels)
    return pack_taps, convolve


def _flipped(conv: Conv2d) -> Conv2d | None:
    """Return the convolution that computes the gradient at the input, if Toom-Cook computes it; else None."""
    F, C, R, S = conv.parameters[0].shape
    padding = R - 1 - conv.padding[0], S - 1 - conv.padding[1]
    if not is_plain(conv) or conv.stride != (1, 1) or min(padding) < 0:
        return None
    weight = Parameter("", (C, F, R, S), 0.0)
    flipped = Conv2d("", conv.output_shape, conv.input_shape, (weight,), padding=padding)
    return flipped if forward_pass(flipped, conv.gradient_share).is_toom_cook else None
