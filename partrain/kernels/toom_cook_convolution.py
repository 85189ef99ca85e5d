"""Toom-Cook convolutions for float32, channels last, stride 1. kernels.toom_cook explains the algorithm.

Each pass has three parts. The inputs of a tile, neighbouring outputs, are transformed: a vector of channels at a time,
to n² points, or to n in one dimension (kernels.toom_cook_convolution_1d). For each point, the numbers are multiplied by
the filters and added over the channels, as in a direct convolution with fewer outputs. Then the sums are transformed to
the tile's outputs: a vector of filters at a time.

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
from partrain.kernels.compiler.target import num_vector_registers
from partrain.kernels.toom_cook import (
    POINTS_OF_3X3,
    POINTS_OF_5X5,
    filter_transform,
    input_transform,
    output_transform,
)

from .max_pool import maximum_of_four
from .simd.blocks import (
    add_outer,
    add_products,
    add_to_all,
    block_of_pairs,
    points_in_steps,
    rectify,
    store_half,
    store_in_steps,
    vector_of,
    zeros,
)
from .simd.linear_maps import linear_map
from .simd.narrow import copy_narrow
from .simd.transposition import transpose
from .simd.vectors import (
    LANES,
    broadcast,
    broadcast_count,
    element,
    load,
    store,
    store_counts,
    store_number,
)

# Outputs of a tile in each dimension.
TILE = 4
_input_to_6 = linear_map(input_transform(POINTS_OF_3X3))
_filter_to_6 = linear_map(filter_transform(POINTS_OF_3X3, 3))
_output_from_6 = linear_map(output_transform(POINTS_OF_3X3, TILE))
_input_to_8 = linear_map(input_transform(POINTS_OF_5X5))
_filter_to_8 = linear_map(filter_transform(POINTS_OF_5X5, 5))
_output_from_8 = linear_map(output_transform(POINTS_OF_5X5, TILE))
# Vectors of sums that stay in registers, and pairs of them for two vectors of filters; more pairs gain nothing.
SUMS = 12 if num_vector_registers() == 16 else 20
PAIRS = 6
# At most so many tiles, or a row of them, are transformed at once, so that they stay in the second-level cache.
BAND = 48
# Numbers between the points' parts: without them, the addresses of all points may compete for one set of the cache.
GAP = 16


def transformed_shape(filter_shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return the shape (K, B, C, L) of filters (F, C, R, R) after `transform_filters_3x3` or `_5x5`."""
    F, C, R, _ = filter_shape
    n = R + TILE - 1
    return n * n, -(-F // LANES), C, LANES


@always_inlined
def num_parts(size):
    return (size + LANES - 1) // LANES


@always_inlined
def first_of(part, size):
    """Return the first channel of a part; the last part may overlap the one before."""
    return max(0, min(part * LANES, size - LANES))


@always_inlined
def filters_last(w_FCRS):
    """Return the filters in the order (c, r, s, f), and the number of filters, at least LANES; further ones are 0."""
    F, C, R, S = w_FCRS.shape
    width = max(F, LANES)
    taps = np.zeros(C * R * S * width, np.float32)
    transpose(w_FCRS, 0, F, C * R * S, taps, 0, width)
    return taps, width


@always_inlined
def _transform_filters(transform, n, w_FCRS, b_F, u_KBCL, b_L):
    """Transform filters, and copy the biases to at least LANES numbers."""
    F, C, R, S = w_FCRS.shape
    _, B, _, _ = u_KBCL.shape
    taps, width = filters_last(w_FCRS)
    for f in range(F):
        store_number(b_L, f, element(b_F, f))
    # Columns of the points (k, c, s, f). Filters are written for one k after the other, so that there are n rows that
    # grow in memory: with n², each number would wait for memory.
    columns = np.empty(n * C * S * LANES, np.float32)
    for b in range(B):
        for c in range(C):
            for s in range(S):
                column = transform(taps, (c * R * S + s) * width + first_of(b, F), S * width)
                store_in_steps(column, columns, (c * S + s) * LANES, C * S * LANES)
        for k in range(n):
            for c in range(C):
                row = transform(columns, (k * C + c) * S * LANES, LANES)
                store_in_steps(row, u_KBCL, ((n * k * B + b) * C + c) * LANES, B * C * LANES)


FILTERS_SIGNATURE = "void(float32[:,:,:,::1], float32[::1], float32[:,:,:,::1], float32[::1])"


@kernel(FILTERS_SIGNATURE)
def transform_filters_3x3(w_FCRS, b_F, u_KBCL, b_L):
    """Transform filters (F, C, 3, 3), and copy the biases to at least LANES numbers."""
    _transform_filters(_filter_to_6, 6, w_FCRS, b_F, u_KBCL, b_L)


@kernel(FILTERS_SIGNATURE)
def transform_filters_5x5(w_FCRS, b_F, u_KBCL, b_L):
    """Transform filters (F, C, 5, 5), and copy the biases to at least LANES numbers."""
    _transform_filters(_filter_to_8, 8, w_FCRS, b_F, u_KBCL, b_L)


@always_inlined
def multiply(v, v_step, v_part, v_row, R, C, u_KBTL, m, m_step, m_part, num_tiles):
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
                store_in_steps(block, m, k * m_step + (B - 1) * m_part + t, LANES)


@always_inlined
def _finish(block, bias, rectified):
    block = add_to_all(block, bias)
    return rectify(block) if rectified else block


@always_inlined
def _write_row(transform, m, m_start, tile_step, point_step, bias, rectified, Q, y, start, step):
    """Write a row of outputs of a vector of filters to y[start + q·step]."""
    for j in range((Q + TILE - 1) // TILE):
        y_4 = _finish(transform(m, m_start + j * tile_step, point_step), bias, rectified)
        store_in_steps(y_4, y, start + min(TILE * j, Q - TILE) * step, step)


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
def write_outputs(
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
            copy_narrow(y, F, pooled_NIJF, start, J)
            copy_narrow(winner.view(np.float32), F, winner_NIJF.view(np.float32), start, J)
    else:
        start = (n * P + p) * Q * F
        _write_row(transform, m, m_start, tile_step, point_step, bias, rectified, Q, y, 0 if narrow else start + f,
                   step)  # fmt: skip
        if narrow:
            copy_narrow(y, F, y_NPQF, start, Q)


@always_inlined
def transform_inputs(transform, n, x_NHWC, example, i, P, Q, row, tiles, half, v, v_step, v_part):
    """Transform the inputs of row `i` of an example's tiles, which is row `row` in `v`. Overwrites `half` (n, W, L)."""
    _, H, W, C = x_NHWC.shape
    for a in range(num_parts(C)):
        at = (example * H + min(TILE * i, P - TILE)) * W * C + first_of(a, C)
        for w in range(W):
            store_in_steps(transform(x_NHWC, at + w * C, W * C), half, w * LANES, W * LANES)
        for k in range(n):
            for t in range(tiles):
                points = transform(half, (k * W + min(TILE * t, Q - TILE)) * LANES, LANES)
                store_in_steps(points, v, n * k * v_step + a * v_part + (row * tiles + t) * LANES, v_step)


@always_inlined
def transform_inputs_of_3x3(x_NHWC, example, i, P, Q, row, tiles, half, v, v_step, v_part):
    """Transform the inputs of a row of tiles of F(4x4, 3x3)."""
    transform_inputs(_input_to_6, 6, x_NHWC, example, i, P, Q, row, tiles, half, v, v_step, v_part)


@always_inlined
def _rows_of_band(tiles, B):
    """Return how many rows of tiles are transformed at once: the most with the fewest sums that are not used."""
    num_sums = SUMS if B % 2 == 1 else PAIRS
    best = 1
    for rows in range(2, BAND // tiles + 1):
        blocks, best_blocks = (rows * tiles + num_sums - 1) // num_sums, (best * tiles + num_sums - 1) // num_sums
        if blocks * best <= best_blocks * rows:
            best = rows
    return best


@always_inlined
def _forward(transform_input, transform_output, n, x_NHWC, u_KBCL, b_L, rectified, y_NPQF, pooled_NIJF, winner_NIJF):
    """Compute a forward pass with n² points; see conv2d_forward_3x3."""
    N, _, W, C = x_NHWC.shape
    K, B, _, _ = u_KBCL.shape
    pools = y_NPQF.size == 0
    _, I, J, F = pooled_NIJF.shape
    P, Q = (2 * I, 2 * J) if pools else y_NPQF.shape[1:3]
    tile_rows, tiles, A = (P + TILE - 1) // TILE, (Q + TILE - 1) // TILE, num_parts(C)
    band = min(N * tile_rows, _rows_of_band(tiles, B))
    v_part, m_part = band * tiles * LANES, (band * tiles + SUMS) * LANES
    v_step, m_step = A * v_part + GAP, B * m_part + GAP
    # What is not written is multiplied, too, and not used.
    v, m = np.empty(K * v_step + SUMS * LANES, np.float32), np.empty(K * m_step, np.float32)
    half = np.empty(n * max(W, TILE * tiles) * LANES, np.float32)
    narrow = F < LANES
    y = np.empty((1, 1, Q, LANES), np.float32) if narrow else pooled_NIJF if pools else y_NPQF
    winner = np.empty((1, 1, J, LANES), np.int32) if narrow else winner_NIJF
    for first in range(0, N * tile_rows, band):
        rows = min(band, N * tile_rows - first)
        for row in range(rows):
            example, i = divmod(first + row, tile_rows)
            transform_inputs(transform_input, n, x_NHWC, example, i, P, Q, row, tiles, half, v, v_step, v_part)
        multiply(v, v_step, v_part, 0, 1, C, u_KBCL, m, m_step, m_part, rows * tiles)
        for row in range(rows):
            example, i = divmod(first + row, tile_rows)
            p = min(TILE * i, P - TILE)
            for b in range(B):
                f = first_of(b, F)
                for t in range(tiles):
                    for k in range(n):
                        column = transform_output(m, k * m_step + b * m_part + (row * tiles + t) * LANES, n * m_step)
                        store_in_steps(column, half, (t * n + k) * LANES, tiles * n * LANES)
                for i in range(0, TILE, 2 if pools else 1):
                    write_outputs(transform_output, half, i * tiles * n * LANES, tiles * n * LANES, n * LANES, LANES,
                                  load(b_L, f), rectified, example, p + i, f, y_NPQF, pooled_NIJF,
                                  winner_NIJF, y, winner)  # fmt: skip


FORWARD_SIGNATURE = (
    "void(float32[:,:,:,::1], float32[:,:,:,::1], float32[::1], boolean, float32[:,:,:,::1], float32[:,:,:,::1],"
    " int32[:,:,:,::1])"
)


@kernel(FORWARD_SIGNATURE)
def conv2d_forward_3x3(x_NHWC, u_KBCL, b_L, rectified, y_NPQF, pooled_NIJF, winner_NIJF):
    """Convolve with filters of 3x3; then, if `rectified`, take max(y, 0); then pool, or not.

    Parameters
    ----------
    x_NHWC : bordered images; read.
    u_KBCL, b_L : from `transform_filters_3x3`; read.
    y_NPQF : overwritten; or (0, P, Q, F), if only the pooled outputs are wanted.
    pooled_NIJF, winner_NIJF : if `y_NPQF` is empty, the maxima of windows of 2x2 and their positions p·Q + q;
        overwritten.
    """
    _forward(_input_to_6, _output_from_6, 6, x_NHWC, u_KBCL, b_L, rectified, y_NPQF, pooled_NIJF, winner_NIJF)


@kernel(FORWARD_SIGNATURE)
def conv2d_forward_5x5(x_NHWC, u_KBCL, b_L, rectified, y_NPQF, pooled_NIJF, winner_NIJF):
    """Convolve with filters of 5x5.

    The parameters are those of `conv2d_forward_3x3`, with filters from `transform_filters_5x5`.
    """
    _forward(_input_to_8, _output_from_8, 8, x_NHWC, u_KBCL, b_L, rectified, y_NPQF, pooled_NIJF, winner_NIJF)
