"""The fast kernels with the arrays of the loops: (N, C, H, W) in and out, padding as a number, gradients by tile.

Around each array stand numbers that nothing may depend on (a kernel may read LANES of them behind its input) and that
nothing may write.

Shapes: N examples; C, H, W input channels, rows, columns; F filters; R, S filter rows, columns; P, Q output rows,
columns; I, J the same after pooling; D, E dense inputs, outputs; T tiles.
"""

from __future__ import annotations

import numpy as np

from partrain.kernels import (
    convolution,
    convolution_backward,
    convolution_weights,
    dense,
    max_pool,
    patch_vectors,
    plane_convolution,
    toom_cook_convolution,
    toom_cook_convolution_1d,
)
from partrain.kernels.simd.vectors import LANES
from tests.kernels import oracles

# Numbers in front of a slot's parts, between them, and behind them.
GAP = 3


def _stranger(dtype):
    return np.nan if np.issubdtype(dtype, np.floating) else -77


def placed(array, offset=0):
    """Return a copy that begins `offset` numbers behind a boundary of 64 bytes, in the middle of strange numbers."""
    numbers = np.full(array.size + 4 * LANES + 16 + offset, _stranger(array.dtype), array.dtype)
    first = 2 * LANES + -numbers[2 * LANES :].ctypes.data % 64 // array.itemsize + offset
    copy = numbers[first : first + array.size].reshape(array.shape)
    copy[...] = array
    return copy


def assert_nothing_was_written_around(*arrays):
    for array in arrays:
        numbers = array.base
        first = (array.ctypes.data - numbers.ctypes.data) // array.itemsize
        around = np.concatenate([numbers[:first], numbers[first + array.size :]])
        np.testing.assert_array_equal(around, np.full_like(around, _stranger(array.dtype)))


def spoilt(shape, offset=0, dtype=np.float32):
    """Return an array for results, full of what must not be left there."""
    return placed(np.full(shape, _stranger(dtype), dtype), offset)


def channels_last(x_NCHW, offset=0, border=(0, 0)):
    rows, columns = border
    x_NHWC = np.pad(x_NCHW.transpose(0, 2, 3, 1), ((0, 0), (rows, rows), (columns, columns), (0, 0)))
    return placed(np.ascontiguousarray(x_NHWC), offset)


def channels_first(x_NHWC):
    return np.ascontiguousarray(x_NHWC.transpose(0, 3, 1, 2))


def conv2d_forward(x_NCHW, w_FCRS, b_F, stride, padding, rectified=False, offset=0):
    x_NHWC = channels_last(x_NCHW, offset, padding)
    N, H, W, _ = x_NHWC.shape
    F, _, R, S = w_FCRS.shape
    w_RKF = placed(np.zeros(convolution.packed_shape(w_FCRS.shape), np.float32), offset)
    packed_b_F = placed(np.zeros(w_RKF.shape[2], np.float32), offset)
    convolution.pack_filters(placed(w_FCRS, offset), placed(b_F, offset), w_RKF, packed_b_F)
    y_NPQF = spoilt((N, (H - R) // stride[0] + 1, (W - S) // stride[1] + 1, F), offset)
    convolution.conv2d_forward(x_NHWC, w_RKF, packed_b_F, stride, rectified, y_NPQF)
    assert_nothing_was_written_around(x_NHWC, w_RKF, packed_b_F, y_NPQF)
    return channels_first(y_NPQF)


def plane_forward(x_N1HW, w_F1RS, b_F, padding, rectified, offset=0):
    """Return the maxima of 2x2 windows and their positions."""
    x_NHW1 = channels_last(x_N1HW, offset, padding)
    N, H, W, _ = x_NHW1.shape
    F, _, R, S = w_F1RS.shape
    pooled_NIJF = spoilt((N, (H - R + 1) // 2, (W - S + 1) // 2, F), offset)
    winner_NIJF = spoilt(pooled_NIJF.shape, offset, np.int32)
    w, b = placed(w_F1RS, offset), placed(b_F, offset)
    plane_convolution.conv2d_pooled_forward(x_NHW1, w, b, rectified, pooled_NIJF, winner_NIJF)
    assert_nothing_was_written_around(x_NHW1, pooled_NIJF, winner_NIJF)
    return channels_first(pooled_NIJF), channels_first(winner_NIJF)


def _toom_cook_kernels(kernel, one_dimension):
    """Return the module, and what transforms filters and images."""
    if kernel == (3, 3):
        module = toom_cook_convolution
        return module, module.transform_filters_3x3, module.conv2d_forward_3x3
    if kernel == (5, 5) and not one_dimension:
        module = toom_cook_convolution
        return module, module.transform_filters_5x5, module.conv2d_forward_5x5
    module = toom_cook_convolution_1d
    return module, module.transform_filters_1d, module.conv2d_forward_1d


def toom_cook_forward(x_NCHW, w_FCRS, b_F, padding, rectified=False, offset=0, pools=False, one_dimension=False):
    """Return the outputs; or, with `pools`, the maxima of 2x2 windows and their positions.

    Filters of five columns that are not 5x5 are computed in one dimension; 5x5 only if told so.
    """
    x_NHWC = channels_last(x_NCHW, offset, padding)
    N, H, W, _ = x_NHWC.shape
    F, _, R, S = w_FCRS.shape
    P, Q = H - R + 1, W - S + 1
    module, transform_filters, conv2d_forward = _toom_cook_kernels((R, S), one_dimension)
    u_KBTL = spoilt(module.transformed_shape(w_FCRS.shape), offset)
    b_L = placed(np.zeros(max(F, LANES), np.float32), offset)
    transform_filters(placed(w_FCRS, offset), placed(b_F, offset), u_KBTL, b_L)
    y_NPQF = spoilt((0 if pools else N, P, Q, F), offset)
    pooled_NIJF = spoilt((N, P // 2, Q // 2, F), offset)
    winner_NIJF = spoilt(pooled_NIJF.shape, offset, np.int32)
    conv2d_forward(x_NHWC, u_KBTL, b_L, rectified, y_NPQF, pooled_NIJF, winner_NIJF)
    assert_nothing_was_written_around(x_NHWC, u_KBTL, b_L, y_NPQF, pooled_NIJF, winner_NIJF)
    return (channels_first(pooled_NIJF), channels_first(winner_NIJF)) if pools else channels_first(y_NPQF)


class Slots:
    """A row for each tile, with more in it than the gradients of one convolution."""

    def __init__(self, num_examples, tile, weight_shape, offset):
        self.weight_shape, self.size = weight_shape, int(np.prod(weight_shape))
        self.weight_start, self.bias_start = GAP, 2 * GAP + self.size
        num_tiles = -(-num_examples // tile)
        self.numbers_TK = spoilt((num_tiles, self.bias_start + weight_shape[0] + GAP), offset)

    def gradients(self):
        """Return dw (T, F, C, R, S) and db (T, F); nothing else may have been written."""
        weight = slice(self.weight_start, self.weight_start + self.size)
        bias = slice(self.bias_start, self.bias_start + self.weight_shape[0])
        dw = self.numbers_TK[:, weight].reshape(-1, *self.weight_shape).copy()
        db = self.numbers_TK[:, bias].copy()
        self.numbers_TK[:, weight] = self.numbers_TK[:, bias] = np.nan
        assert np.isnan(self.numbers_TK).all()
        assert_nothing_was_written_around(self.numbers_TK)
        return dw, db


def conv2d_backward_winners(
    x_NCHW,
    w_FCRS,
    dy_NFIJ,
    pooled_NFIJ,
    winner_NFIJ,
    stride,
    padding,
    output_size,
    *,
    rectified,
    tile,
    wants_dx=True,
    flattened=False,
    offset=0,
):
    """Return dw (T, F, C, R, S), db (T, F), and dx (N, C, H, W) or None.

    `flattened` gives the gradient in the order (F, I, J), as it comes out of a flatten, in place of (I, J, F).
    """
    N, C, H, W = x_NCHW.shape
    F, _, R, S = w_FCRS.shape
    _, _, I, J = dy_NFIJ.shape
    w_FV = placed(np.zeros(patch_vectors.patch_vectors_shape(w_FCRS.shape), np.float32), offset)
    patch_vectors.pack_patch_vectors(placed(w_FCRS, offset), w_FV)
    d_ND = (placed(dy_NFIJ, offset) if flattened else channels_last(dy_NFIJ, offset)).reshape(N, -1)
    slots = Slots(N, tile, w_FCRS.shape, offset)
    dx_NHWC = spoilt((N if wants_dx else 0, H, W, C), offset)
    convolution_backward.conv2d_backward_winners(
        channels_last(x_NCHW, offset, padding), w_FV, d_ND, 1 if flattened else F, I * J if flattened else 1,
        channels_last(pooled_NFIJ, offset), rectified, channels_last(winner_NFIJ.astype(np.int32), offset), (R, S),
        stride, padding, output_size, tile, slots.numbers_TK, slots.weight_start, slots.bias_start, dx_NHWC,
    )  # fmt: skip
    assert_nothing_was_written_around(w_FV, dx_NHWC)
    return *slots.gradients(), channels_first(dx_NHWC) if wants_dx else None


def every_place_wins(dy_NFPQ):
    """Return the winners of a convolution without pooling."""
    _, _, P, Q = dy_NFPQ.shape
    return np.broadcast_to(np.arange(P * Q).reshape(P, Q), dy_NFPQ.shape)


def conv2d_backward_weights(x_NCHW, y_NFPQ, dy_NFPQ, kernel_size, stride, padding, *, rectified, tile, offset=0):
    """Return dw (T, F, C, R, S) and db (T, F)."""
    slots = Slots(len(x_NCHW), tile, (y_NFPQ.shape[1], x_NCHW.shape[1], *kernel_size), offset)
    convolution_weights.conv2d_backward_weights(
        channels_last(x_NCHW, offset, padding), channels_last(y_NFPQ, offset), rectified,
        channels_last(dy_NFPQ, offset), kernel_size, stride, tile, slots.numbers_TK, slots.weight_start,
        slots.bias_start,
    )  # fmt: skip
    return slots.gradients()


def max_pool_forward(x_NCHW, window, stride, padding=(0, 0), offset=0):
    """Return the maxima and the winners."""
    N, C, H, W = x_NCHW.shape
    shape = N, *oracles.num_positions((H, W), window, stride, padding), C
    y_NIJF, winner_NIJF = spoilt(shape, offset), spoilt(shape, offset, np.int32)
    max_pool.max_pool_forward(channels_last(x_NCHW, offset), window, stride, padding, y_NIJF, winner_NIJF)
    assert_nothing_was_written_around(y_NIJF, winner_NIJF)
    return channels_first(y_NIJF), channels_first(winner_NIJF)


def max_pool_backward_input(dy_NCIJ, winner_NCIJ, shape_NCHW, flattened=False, offset=0):
    (N, C, I, J), (_, _, H, W) = dy_NCIJ.shape, shape_NCHW
    d_ND = (placed(dy_NCIJ, offset) if flattened else channels_last(dy_NCIJ, offset)).reshape(N, -1)
    winner_NIJC = channels_last(winner_NCIJ.astype(np.int32), offset)
    dx_NHWC = spoilt((N, H, W, C), offset)
    steps = (1, I * J) if flattened else (C, 1)
    max_pool.max_pool_backward_input(d_ND, *steps, winner_NIJC, dx_NHWC)
    assert_nothing_was_written_around(dx_NHWC)
    return channels_first(dx_NHWC)


def dense_forward(x_ND, w_ED, b_E, rectified=False, offset=0):
    y_NE = spoilt((len(x_ND), len(w_ED)), offset)
    dense.dense_forward(placed(x_ND, offset), placed(w_ED, offset), placed(b_E, offset), rectified, y_NE)
    assert_nothing_was_written_around(y_NE)
    return y_NE.copy()


def dense_backward_input(dy_NE, w_ED, offset=0):
    dx_ND = spoilt((len(dy_NE), w_ED.shape[1]), offset)
    dense.dense_backward_input(placed(dy_NE, offset), placed(w_ED, offset), dx_ND)
    assert_nothing_was_written_around(dx_ND)
    return dx_ND.copy()


def dense_backward_weights(x_ND, dy_NE, offset=0):
    dw_ED, db_E = spoilt((dy_NE.shape[1], x_ND.shape[1]), offset), spoilt(dy_NE.shape[1], offset)
    dense.dense_backward_weights(placed(x_ND, offset), placed(dy_NE, offset), dw_ED, db_E)
    assert_nothing_was_written_around(dw_ED, db_E)
    return dw_ED.copy(), db_E.copy()
