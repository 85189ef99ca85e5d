"""Toom-Cook convolutions for float32, channels last, stride 1. kernels.toom_cook explains the algorithm.

Each pass has three parts. The inputs of a tile, neighbouring outputs, are transformed: a vector of channels at a time,
to n points in one dimension and n² in two. For each point, the numbers are multiplied by the filters and added over the
channels, as in a direct convolution with fewer outputs. Then the sums are transformed to the tile's outputs: a vector
of filters at a time.

`kernels.convolution` says what the images look like. A tile that would reach over the edge is moved back, and its
outputs replace those of the tile before it. An output's sum has one order, whatever LANES is: every step is in one
lane, and an addition or a fused multiply-add.

In between, what belongs to one point and one vector of channels or filters (a part) lies together, by tiles. So the
addresses in the inner loop differ by constants, which takes no registers.

Shapes: N examples; C, H, W channels, rows, columns with the border; F filters; R, S filter rows, columns; P, Q output
rows, columns; I, J the same after pooling; n points of a dimension; K points of a tile; A, B parts of the channels and
of the filters; T taps (r, c) of a point; L LANES.
"""

from __future__ import annotations

import numpy as np

from partrain.kernels.compiler.flags import always_inlined, kernel
from partrain.kernels.max_pool import maximum_of_four
from partrain.kernels.simd.blocks import (
    add_outer,
    add_products,
    add_to_all,
    block_of_pairs,
    points_in_steps,
    rectify,
    store_block,
    store_half,
    vector_of,
    zeros,
)
from partrain.kernels.simd.linear_maps import linear_map
from partrain.kernels.simd.transposition import transpose
from partrain.kernels.simd.vectors import (
    LANES,
    broadcast,
    broadcast_count,
    element,
    load,
    store,
    store_counts,
    store_number,
)
from partrain.kernels.toom_cook import filter_transform, input_transform, output_transform

# Outputs of a tile in each dimension.
TILE = 4
# F(4, 5) in one dimension, F(4x4, 3x3) in two.
_input_to_8, _filter_to_8, _output_from_8 = map(
    linear_map, (input_transform(8), filter_transform(TILE, 5), output_transform(TILE, 5))
)
_input_to_6, _filter_to_6, _output_from_6 = map(
    linear_map, (input_transform(6), filter_transform(TILE, 3), output_transform(TILE, 3))
)
# Vectors of sums that stay in registers; 12 of them fit the 16 registers of AVX2, and no more are needed elsewhere.
SUMS = 12
PAIRS = SUMS // 2
# Tiles that are transformed at once, so that they stay in the second-level cache.
BAND_1D = 128
BAND_2D = 48
# Numbers between the points' parts: without them, the addresses of all points may compete for one set of the cache.
GAP = 16


def transformed_shape(filter_shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return the shape (K, B, T, L) of filters (F, C, R, S) after `transform_filters_1d` (S = 5) or `_2d` (3x3)."""
    F, C, R, S = filter_shape
    return (8, -(-F // LANES), R * C, LANES) if S == 5 else (36, -(-F // LANES), C, LANES)


@always_inlined
def num_parts(size):
    return (size + LANES - 1) // LANES


@always_inlined
def first_of(part, size):
    """Return the first channel of a part; the last part may overlap the one before."""
    return max(0, min(part * LANES, size - LANES))


@always_inlined
def _filters_last(w_FCRS):
    """Return the filters in the order (c, r, s, f), and the number of filters, at least LANES; further ones are 0."""
    F, C, R, S = w_FCRS.shape
    width = max(F, LANES)
    taps = np.zeros(C * R * S * width, np.float32)
    transpose(w_FCRS, 0, F, C * R * S, taps, 0, width)
    return taps, width


_FILTERS = "void(float32[:,:,:,::1], float32[::1], float32[:,:,:,::1], float32[::1])"


@kernel(_FILTERS)
def transform_filters_1d(w_FCRS, b_F, u_KBTL, b_L):
    """Transform filters (F, C, R, 5) along their columns, and copy the biases to at least LANES numbers."""
    F, C, R, S = w_FCRS.shape
    _, B, T, _ = u_KBTL.shape
    taps, width = _filters_last(w_FCRS)
    for f in range(F):
        store_number(b_L, f, element(b_F, f))
    for c in range(C):
        for r in range(R):
            for b in range(B):
                u = points_in_steps(u_KBTL, (b * T + r * C + c) * LANES, B * T * LANES, 8)
                store_block(_filter_to_8(taps, (c * R + r) * S * width + first_of(b, F), width), u, 0)


@kernel(_FILTERS)
def transform_filters_2d(w_FCRS, b_F, u_KBTL, b_L):
    """Transform filters (F, C, 3, 3), and copy the biases to at least LANES numbers."""
    F, C, R, S = w_FCRS.shape
    _, B, _, _ = u_KBTL.shape
    taps, width = _filters_last(w_FCRS)
    # Columns of the points (k, c, s, f). Filters are written for one k after the other, so that there are six rows that
    # grow in memory: with 36, each number would wait for memory.
    columns = np.empty(6 * C * S * LANES, np.float32)
    for f in range(F):
        store_number(b_L, f, element(b_F, f))
    for b in range(B):
        for c in range(C):
            for s in range(S):
                column = _filter_to_6(taps, (c * R * S + s) * width + first_of(b, F), S * width)
                store_block(column, points_in_steps(columns, (c * S + s) * LANES, C * S * LANES, 6), 0)
        for k in range(6):
            for c in range(C):
                u = points_in_steps(u_KBTL, ((6 * k * B + b) * C + c) * LANES, B * C * LANES, 6)
                store_block(_filter_to_6(columns, (k * C + c) * S * LANES, LANES), u, 0)


@always_inlined
def _multiply(v, v_step, v_part, v_row, R, C, u_KBTL, m, m_step, m_part, num_tiles):
    """For each point and filter, add the products of tiles and filters over the taps (r, c).

    A tile's next row is `v_row` numbers behind it in `v`. More tiles than `num_tiles` are computed and not used.
    """
    K, B, T, _ = u_KBTL.shape
    u_part = T * LANES
    for k in range(K):
        for b in range(0, B - 1, 2):
            for t in range(0, num_tiles * LANES, PAIRS * LANES):
                pairs = block_of_pairs(broadcast(np.float32(0)), broadcast(np.float32(0)), PAIRS)
                u = (k * B + b) * u_part
                for r in range(R):
                    for a in range(num_parts(C)):
                        tiles = points_in_steps(v, k * v_step + a * v_part + r * v_row + t, LANES, PAIRS)
                        first = first_of(a, C)
                        for c in range(a * LANES - first, min(C, (a + 1) * LANES) - first):
                            pairs = add_outer(pairs, u_KBTL, u, u + u_part, tiles, c)
                            u += LANES
                sums = points_in_steps(m, k * m_step + b * m_part + t, LANES, PAIRS)
                store_half(pairs, 0, sums, 0)
                store_half(pairs, 1, sums, m_part)
        if B % 2 == 1:
            for t in range(0, num_tiles * LANES, SUMS * LANES):
                block = zeros(SUMS)
                u = (k * B + B - 1) * u_part
                for r in range(R):
                    for a in range(num_parts(C)):
                        more_tiles = points_in_steps(v, k * v_step + a * v_part + r * v_row + t, LANES, SUMS)
                        first = first_of(a, C)
                        for c in range(a * LANES - first, min(C, (a + 1) * LANES) - first):
                            block = add_products(block, load(u_KBTL, u), more_tiles, c)
                            u += LANES
                store_block(block, points_in_steps(m, k * m_step + (B - 1) * m_part + t, LANES, SUMS), 0)


@always_inlined
def _finish(block, bias, rectified):
    block = add_to_all(block, bias)
    return rectify(block) if rectified else block


@always_inlined
def _write_row(transform, m, m_start, tile_step, point_step, bias, rectified, Q, y, start, step):
    """Write a row of outputs of a vector of filters to y[start + q·step]."""
    for j in range((Q + TILE - 1) // TILE):
        y_4 = _finish(transform(m, m_start + j * tile_step, point_step), bias, rectified)
        store_block(y_4, points_in_steps(y, start + min(TILE * j, Q - TILE) * step, step, TILE), 0)


@always_inlined
def _write_pooled_row(
    transform, m, m_start, row_step, tile_step, point_step, bias, rectified, J, place, Q, pooled, winner, start, step
):
    """Write a row of maxima of 2x2 windows, from two rows of outputs that begin at position `place`."""
    for t in range((J + 1) // 2):
        at, j = m_start + t * tile_step, min(2 * t, J - 2)
        upper = _finish(transform(m, at, point_step), bias, rectified)
        lower = _finish(transform(m, at + row_step, point_step), bias, rectified)
        best, which = maximum_of_four(
            vector_of(upper, 0), vector_of(upper, 1), vector_of(lower, 0), vector_of(lower, 1),
            broadcast_count(place + 2 * j), Q,
        )  # fmt: skip
        store(pooled, start + j * step, best)
        store_counts(winner, start + j * step, which)
        best, which = maximum_of_four(
            vector_of(upper, 2), vector_of(upper, 3), vector_of(lower, 2), vector_of(lower, 3),
            broadcast_count(place + 2 * j + 2), Q,
        )  # fmt: skip
        store(pooled, start + (j + 1) * step, best)
        store_counts(winner, start + (j + 1) * step, which)


@always_inlined
def _copy_narrow(source, width, target, start, count):
    """Copy `count` groups of `width` numbers out of groups of LANES."""
    for t in range(count):
        for lane in range(width):
            store_number(target, start + t * width + lane, element(source, t * LANES + lane))


@always_inlined
def _write_outputs(
    transform,
    m,
    m_start,
    row_step,
    tile_step,
    point_step,
    bias,
    rectified,
    n,
    p,
    f,
    y_NPQF,
    pooled_NIJF,
    winner_NIJF,
    y,
    winner,
):
    """Write what comes of one row of outputs, or two if they are pooled, of a vector of filters.

    Fewer than LANES filters go through the buffers `y` and `winner`; else these are the outputs' numbers.
    """
    _, I, J, F = pooled_NIJF.shape
    _, P, Q, _ = y_NPQF.shape
    narrow, step = F < LANES, max(F, LANES)
    if y_NPQF.size == 0:
        start = (n * I + p // 2) * J * F
        _write_pooled_row(transform, m, m_start, row_step, tile_step, point_step, bias, rectified, J, p * Q, Q,
                          y, winner, 0 if narrow else start + f, step)  # fmt: skip
        if narrow:
            _copy_narrow(y, F, pooled_NIJF, start, J)
            _copy_narrow(winner, F, winner_NIJF, start, J)
    else:
        start = (n * P + p) * Q * F
        _write_row(transform, m, m_start, tile_step, point_step, bias, rectified, Q, y, 0 if narrow else start + f,
                   step)  # fmt: skip
        if narrow:
            _copy_narrow(y, F, y_NPQF, start, Q)


_FORWARD = (
    "void(float32[:,:,:,::1], float32[:,:,:,::1], float32[::1], boolean, float32[:,:,:,::1], float32[:,:,:,::1],"
    " int32[:,:,:,::1])"
)


@kernel(_FORWARD)
def conv2d_forward_1d(x_NHWC, u_KBTL, b_L, rectified, y_NPQF, pooled_NIJF, winner_NIJF):
    """Convolve with filters of five columns; then, if `rectified`, take max(y, 0); then pool, or not.

    Parameters
    ----------
    x_NHWC : bordered images; read.
    u_KBTL, b_L : from `transform_filters_1d`; read.
    y_NPQF : overwritten; or (0, P, Q, F), if only the pooled outputs are wanted.
    pooled_NIJF, winner_NIJF : if `y_NPQF` is empty, the maxima of windows of 2x2 and their positions p·Q + q;
        overwritten.
    """
    N, H, W, C = x_NHWC.shape
    K, B, T, _ = u_KBTL.shape
    R = T // C
    pools = y_NPQF.size == 0
    _, I, J, F = pooled_NIJF.shape
    P, Q = (2 * I, 2 * J) if pools else y_NPQF.shape[1:3]
    tiles, A = (Q + TILE - 1) // TILE, num_parts(C)
    num_bands = max(1, P * tiles // BAND_1D)
    band = (P + 2 * num_bands - 1) // (2 * num_bands) * 2  # whole windows of the pooling
    v_part, m_part = (band + R - 1) * tiles * LANES, (band * tiles + SUMS) * LANES
    v_step, m_step = A * v_part + GAP, B * m_part + GAP
    v, m = np.zeros(K * v_step + SUMS * LANES, np.float32), np.empty(K * m_step, np.float32)
    narrow = F < LANES
    y = np.empty((1, 1, Q, LANES), np.float32) if narrow else pooled_NIJF if pools else y_NPQF
    winner = np.empty((1, 1, J, LANES), np.int32) if narrow else winner_NIJF
    for n in range(N):
        for p in range(0, P, band):
            rows = min(band, P - p)
            for h in range(rows + R - 1):
                for t in range(tiles):
                    at = ((n * H + p + h) * W + min(TILE * t, Q - TILE)) * C
                    for a in range(A):
                        points = points_in_steps(v, a * v_part + (h * tiles + t) * LANES, v_step, 8)
                        store_block(_input_to_8(x_NHWC, at + first_of(a, C), C), points, 0)
            _multiply(v, v_step, v_part, tiles * LANES, R, C, u_KBTL, m, m_step, m_part, rows * tiles)
            for row in range(0, rows, 2 if pools else 1):
                for b in range(B):
                    f = first_of(b, F)
                    _write_outputs(_output_from_8, m, b * m_part + row * tiles * LANES, tiles * LANES, LANES, m_step,
                                   load(b_L, f), rectified, n, p + row, f, y_NPQF, pooled_NIJF,
                                   winner_NIJF, y, winner)  # fmt: skip


@always_inlined
def transform_inputs_2d(x_NHWC, n, i, P, Q, row, tiles, half, v, v_step, v_part):
    """Transform the inputs of row `i` of an example's tiles, which is row `row` in `v`. Overwrites `half` (6, W, L)."""
    _, H, W, C = x_NHWC.shape
    for a in range(num_parts(C)):
        at = (n * H + min(TILE * i, P - TILE)) * W * C + first_of(a, C)
        for w in range(W):
            store_block(_input_to_6(x_NHWC, at + w * C, W * C), points_in_steps(half, w * LANES, W * LANES, 6), 0)
        for k in range(6):
            for t in range(tiles):
                points = points_in_steps(v, 6 * k * v_step + a * v_part + (row * tiles + t) * LANES, v_step, 6)
                q = min(TILE * t, Q - TILE)
                store_block(_input_to_6(half, (k * W + q) * LANES, LANES), points, 0)


@kernel(_FORWARD)
def conv2d_forward_2d(x_NHWC, u_KBTL, b_L, rectified, y_NPQF, pooled_NIJF, winner_NIJF):
    """Convolve with filters of 3x3.

    The parameters are those of `conv2d_forward_1d`, with filters from `transform_filters_2d`.
    """
    N, _, W, C = x_NHWC.shape
    K, B, _, _ = u_KBTL.shape
    pools = y_NPQF.size == 0
    _, I, J, F = pooled_NIJF.shape
    P, Q = (2 * I, 2 * J) if pools else y_NPQF.shape[1:3]
    tile_rows, tiles, A = (P + TILE - 1) // TILE, (Q + TILE - 1) // TILE, num_parts(C)
    num_bands = max(1, N * tile_rows * tiles // BAND_2D)
    band = (N * tile_rows + num_bands - 1) // num_bands
    v_part, m_part = band * tiles * LANES, (band * tiles + SUMS) * LANES
    v_step, m_step = A * v_part + GAP, B * m_part + GAP
    # What is not written is multiplied, too, and not used.
    v, m = np.empty(K * v_step + SUMS * LANES, np.float32), np.empty(K * m_step, np.float32)
    half = np.empty(6 * max(W, TILE * tiles) * LANES, np.float32)
    narrow = F < LANES
    y = np.empty((1, 1, Q, LANES), np.float32) if narrow else pooled_NIJF if pools else y_NPQF
    winner = np.empty((1, 1, J, LANES), np.int32) if narrow else winner_NIJF
    for first in range(0, N * tile_rows, band):
        rows = min(band, N * tile_rows - first)
        for row in range(rows):
            n, i = divmod(first + row, tile_rows)
            transform_inputs_2d(x_NHWC, n, i, P, Q, row, tiles, half, v, v_step, v_part)
        _multiply(v, v_step, v_part, 0, 1, C, u_KBTL, m, m_step, m_part, rows * tiles)
        for row in range(rows):
            n, i = divmod(first + row, tile_rows)
            p = min(TILE * i, P - TILE)
            for b in range(B):
                f = first_of(b, F)
                for t in range(tiles):
                    for k in range(6):
                        column = _output_from_6(m, k * m_step + b * m_part + (row * tiles + t) * LANES, 6 * m_step)
                        store_block(column, points_in_steps(half, (t * 6 + k) * LANES, tiles * 6 * LANES, TILE), 0)
                for i in range(0, TILE, 2 if pools else 1):
                    _write_outputs(_output_from_6, half, i * tiles * 6 * LANES, tiles * 6 * LANES, 6 * LANES, LANES,
                                   load(b_L, f), rectified, n, p + i, f, y_NPQF, pooled_NIJF,
                                   winner_NIJF, y, winner)  # fmt: skip
