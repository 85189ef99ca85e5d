"""The filter gradient of a 3x3 convolution for float32 by Toom-Cook, channels last, stride 1.

It is the transposed algorithm of F(4x4, 3x3) once more (kernels.toom_cook), which takes a quarter of the products:

    dg = sum over tiles of  G^T [(A dy A^T) * (B^T d B)] G

dy are a tile's 4x4 gradients at the outputs, d its 6x6 inputs. A, too, takes numbers to the n² points, and there the
products of all tiles are summed, for each channel and filter; G^T takes the sums back to 3x3 taps.

A tile that would reach over the edge is moved back, with zeros for the gradients that the tile before it has. Each sum
is one chain over the tiles of outputs, and the other steps are those of a linear map, each in one lane.

Shapes: as in kernels.toom_cook_convolution; A, B parts of the channels and of the filters.
"""

from __future__ import annotations

import numpy as np

from partrain.kernels.compiler.flags import always_inlined, kernel
from partrain.kernels.toom_cook import POINTS_OF_3X3, filter_transform, output_transform

from .simd.blocks import (
    add_outer,
    add_products,
    load_block,
    load_rows,
    points_in_steps,
    points_of,
    store_block,
    zeros,
)
from .simd.linear_maps import linear_map
from .simd.transposition import transpose
from .simd.vectors import LANES, PAIRS, broadcast, element, load, store, store_number
from .tap_convolution import completes_tile
from .toom_cook_convolution import GAP, TILE, first_of, num_parts, transform_inputs_of_3x3

_gradient_to_6 = linear_map(tuple(zip(*output_transform(POINTS_OF_3X3, TILE), strict=True)))
_taps_from_6 = linear_map(tuple(zip(*filter_transform(POINTS_OF_3X3, 3), strict=True)))
_POINTS = 36
# Channels whose sums stay in registers, with one vector of filters.
SINGLES = 12
# The same with two vectors, so that 16, 32 and 64 channels are whole blocks where there are registers for 8.
CHANNEL_PAIRS = min(PAIRS, 8)
_MOST = max(SINGLES, CHANNEL_PAIRS)
# Numbers at all points of the inputs and gradients of a band, a quarter of a second-level cache: at least so many, and
# those of a row of tiles. With more sums there are twice as many, so that they are read and written less often.
BAND_NUMBERS = 2**16


@always_inlined
def _transform_gradients(dy_NPQF, border, n, i, row, tiles, clean, half, m, m_step, m_part):
    """Take a row of tiles of gradients to the points."""
    _, bordered_P, bordered_Q, F = dy_NPQF.shape
    P, Q = bordered_P - 2 * border[0], bordered_Q - 2 * border[1]
    p = min(TILE * i, P - TILE)
    step, half_row = bordered_Q * F, TILE * tiles * LANES
    for b in range(num_parts(F)):
        start = ((n * bordered_P + p + border[0]) * bordered_Q + border[1]) * F + first_of(b, F)
        for t in range(tiles):
            q = min(TILE * t, Q - TILE)
            for j in range(TILE):
                column = points_in_steps(half, (TILE * t + j) * LANES, half_row, 6)
                if q + j < TILE * t:  # the tile before has this column
                    store_block(zeros(6), column, 0)
                elif p < TILE * i:  # the tiles above have some of its rows
                    for k in range(TILE):
                        if p + k >= TILE * i:
                            store(clean, k * LANES, load(dy_NPQF, start + k * step + (q + j) * F))
                        else:
                            store(clean, k * LANES, broadcast(np.float32(0)))
                    store_block(_gradient_to_6(clean, 0, LANES), column, 0)
                else:
                    store_block(_gradient_to_6(dy_NPQF, start + (q + j) * F, step), column, 0)
        for k in range(6):
            for t in range(tiles):
                points = points_in_steps(m, 6 * k * m_step + b * m_part + (row * tiles + t) * LANES, m_step, 6)
                store_block(_gradient_to_6(half, k * half_row + TILE * t * LANES, LANES), points, 0)


@always_inlined
def _add_products_of_tiles(v, v_step, channels, C, m, m_step, m_part, B, num_tiles, sums, padded):
    """For each point, channel and filter, add the products of all tiles to `sums` (point, pair of parts, channel)."""
    for k in range(_POINTS):
        for b in range(0, B - 1, 2):
            for c in range(0, C, CHANNEL_PAIRS):
                points = points_of(v, k * v_step, channels, c, CHANNEL_PAIRS)
                rows = points_in_steps(sums, ((k * B + b) * padded + 2 * c) * LANES, 2 * LANES, CHANNEL_PAIRS)
                pairs = load_rows(rows, 0, 2)
                at = k * m_step + b * m_part
                for t in range(0, num_tiles * LANES, LANES):
                    pairs = add_outer(pairs, m, at + t, at + m_part + t, points, t)
                store_block(pairs, rows, 0)
        if B % 2 == 1:
            for c in range(0, C, SINGLES):
                more_points = points_of(v, k * v_step, channels, c, SINGLES)
                more_rows = points_in_steps(sums, ((k * B + B - 1) * padded + c) * LANES, LANES, SINGLES)
                block = load_block(more_rows, 0)
                at = k * m_step + (B - 1) * m_part
                for t in range(0, num_tiles * LANES, LANES):
                    block = add_products(block, load(m, at + t), more_points, t)
                store_block(block, more_rows, 0)


@always_inlined
def _write_filters(sums, B, C, F, padded, columns, taps, slots, start):
    """Take the sums of one tile's gradient back to the taps of its filters."""
    for b in range(B):
        paired = b < B - B % 2
        step = (2 if paired else 1) * LANES
        first = (b // 2 * 2 * padded + b % 2) * LANES if paired else b * padded * LANES
        for c in range(C):
            for k in range(6):
                column = _taps_from_6(sums, first + c * step + k * B * padded * LANES, 6 * B * padded * LANES)
                store_block(column, points_in_steps(columns, k * LANES, 6 * LANES, 3), 0)
            for r in range(3):
                row = _taps_from_6(columns, 6 * r * LANES, LANES)
                store_block(row, points_in_steps(taps, (c * 9 + 3 * r) * LANES, LANES, 3), 0)
        if F >= LANES:
            transpose(taps, 0, C * 9, LANES, slots, start + first_of(b, F) * C * 9, C * 9)
        else:
            for f in range(F):
                for tap in range(C * 9):
                    store_number(slots, start + f * C * 9 + tap, element(taps, tap * LANES + f))


def sums_size(C: int, F: int) -> int:
    """Return how many sums a weight gradient has at all points."""
    return (_POINTS * -(-F // LANES) * (C + _MOST) + _MOST) * LANES


@kernel(
    "void(float32[:,:,:,::1], float32[:,:,:,::1], UniTuple(int64, 2), int64[::1], int64, int64, float32[::1],"
    " float32[:,::1], int64)"
)
def conv2d_backward_weights_2d(x_NHWC, dy_NPQF, border, numbers_N, num, tile, sums, slots_TK, weight_start):
    """Compute the filter gradients of tiles of examples, (F, C, 3, 3); that of a tile is complete with its last one.

    Parameters
    ----------
    x_NHWC : the layer's input, with its border; read.
    dy_NPQF : the gradient at the output, with a border of `border` rows and columns; read.
    numbers_N : the examples' numbers, in their order, of `num`; read.
    tile : examples in a tile; the last tile may have fewer.
    sums : the sums of a tile, `sums_size` numbers; kept from call to call, read and overwritten.
    slots_TK : a row for each tile; its filters from `weight_start` on are overwritten.
    """
    N, _, W, C = x_NHWC.shape
    F = dy_NPQF.shape[3]
    P, Q = dy_NPQF.shape[1] - 2 * border[0], dy_NPQF.shape[2] - 2 * border[1]
    K = slots_TK.shape[1]
    A, B = num_parts(C), num_parts(F)
    tile_rows, tiles = (P + TILE - 1) // TILE, (Q + TILE - 1) // TILE
    band_numbers = max(BAND_NUMBERS, 2 * _POINTS * C * F)
    most_rows = max(1, min(min(N, tile) * tile_rows, band_numbers // (_POINTS * (C + F) * tiles)))
    num_bands = (min(N, tile) * tile_rows + most_rows - 1) // most_rows
    band = (min(N, tile) * tile_rows + num_bands - 1) // num_bands
    v_part = m_part = band * tiles * LANES
    v_step, m_step = A * v_part + GAP, B * m_part + GAP
    v, m = np.empty(_POINTS * v_step, np.float32), np.empty(_POINTS * m_step, np.float32)
    half = np.empty(6 * max(W, TILE * tiles) * LANES, np.float32)
    clean, columns = np.empty(TILE * LANES, np.float32), np.empty(18 * LANES, np.float32)
    padded = C + _MOST  # a pair of parts has the room of two
    taps = np.empty(C * 9 * LANES, np.float32)
    channels = np.empty(C + _MOST, np.int64)
    for c in range(C + _MOST):
        part = min(c, C - 1) // LANES
        channels[c] = part * v_part + min(c, C - 1) - first_of(part, C)
    last_n = 0
    while last_n < N:
        first_n, number = last_n, numbers_N[last_n]
        last_n = min(N, first_n + tile - number % tile)
        if number % tile == 0:
            sums[:] = 0
        for first in range(first_n * tile_rows, last_n * tile_rows, band):
            rows = min(band, last_n * tile_rows - first)
            for row in range(rows):
                n, i = divmod(first + row, tile_rows)
                transform_inputs_of_3x3(x_NHWC, n, i, P, Q, row, tiles, half, v, v_step, v_part)
                _transform_gradients(dy_NPQF, border, n, i, row, tiles, clean, half, m, m_step, m_part)
            _add_products_of_tiles(v, v_step, channels, C, m, m_step, m_part, B, rows * tiles, sums, padded)
        number = numbers_N[last_n - 1]
        if completes_tile(number, num, tile):
            _write_filters(sums, B, C, F, padded, columns, taps, slots_TK, number // tile * K + weight_start)
