"""Convolution over lists of taps for float32, channels last: any stride, padding, dilation and groups, and gradients.

An output at a place is a sum over taps, and each tap is a step from the place's patch in the input:

    y[place + f] = b[f] + sum over k of  x[patch + tap k] · w[k,f]

The lists of taps, patches and places (network.stages.tap_lists) hold all geometry, so one kernel computes the forward
pass of a group, and the gradient at its input for the places that the same taps reach. In a depthwise convolution each
output has a channel of its own: vectors hold channels in place of filters, and x[patch + tap k + f] is read.

What belongs to one vector of filters or channels (a part) lies together, by taps. The last part may overlap the one
before. Lists have a multiple of a block's places and taps; the last one is repeated. Each sum is one chain, in the
order of its list. Inputs are followed by LANES numbers that a vector may read.

Shapes: N examples; H, W, C rows, columns (with a border), channels of what is read; P, Q, F of what is written; k taps;
B parts; L LANES; T tiles; K parameters of a slot.
"""

from __future__ import annotations

import numpy as np

from partrain.kernels.compiler.flags import always_inlined, inlined, kernel

from .simd.blocks import (
    add_outer,
    add_products,
    add_scaled,
    block_of_pairs,
    load_block,
    load_rows,
    points_in_steps,
    points_of,
    store_block,
    store_half,
)
from .simd.vectors import LANES, PAIRS, add, element, load, store, store_number

# Places of a block with one vector, and taps of one in a weight gradient.
SINGLES = 12
_HALF_SINGLES = SINGLES // 2
# Taps of a block with two vectors in a weight gradient: 3x3x16, or 16 and 32 channels, are whole blocks of 8.
TAP_PAIRS = min(PAIRS, 8)
# The same for depthwise convolutions, which read a vector for each product. 9 are the taps of 3x3.
DEPTHWISE_PLACES = 8
_HALF_PLACES = DEPTHWISE_PLACES // 2
DEPTHWISE_TAPS = 9
# A list's length is a multiple of the sizes of the blocks that read it, or has as much to spare.
MOST = max(SINGLES, PAIRS)
# Places whose gradients are added to all taps, one block after the other, while they stay in the first-level cache.
BAND = 128


@always_inlined
def _first_of(part, size):
    return max(0, min(part * LANES, size - LANES))


def packed_shape(num_taps: int, num_outputs: int) -> tuple[int, int, int]:
    """Return the shape (B, k, L) of filters after `pack_taps`."""
    return -(-num_outputs // LANES), num_taps, LANES


@kernel("void(float32[:,:,:,::1], int64[::1], int64, float32[::1], int64, int64, float32[:,:,::1], float32[:,::1])")
def pack_taps(w_FCRS, sources_k, step, b_F, first, num_outputs, w_BkL, b_BL):
    """Copy the filters: w[k,f] = number sources[k] + f·step of `w_FCRS`; and the biases b[first + f].

    Lanes beyond `num_outputs` keep their value.
    """
    B, k, _ = w_BkL.shape
    for part in range(B):
        f = _first_of(part, num_outputs)
        for lane in range(min(LANES, num_outputs)):
            store_number(b_BL, part * LANES + lane, element(b_F, first + f + lane))
        for tap in range(k):
            for lane in range(min(LANES, num_outputs)):
                number = element(w_FCRS, element(sources_k, tap) + (f + lane) * step)
                store_number(w_BkL, (part * k + tap) * LANES + lane, number)


@inlined
def _store_narrow(block_numbers, size, num_outputs, y, y_start, places, t):
    """Write the first `num_outputs` lanes of a block's `size` vectors."""
    for j in range(size):
        at = y_start + element(places, t + j)
        for lane in range(num_outputs):
            store_number(y, at + lane, element(block_numbers, j * LANES + lane))


_OVER_TAPS = (
    "void(float32[:,:,:,::1], float32[:,:,::1], float32[:,::1], int64[::1], int64[::1], int64[::1], int64, int64,"
    " float32[:,:,:,::1])"
)


@kernel(_OVER_TAPS)
def conv2d_over_taps(x_NHWC, w_BkL, b_BL, taps, patches, places, num_places, num_outputs, y_NPQF):
    """Convolve at the places of a list.

    Parameters
    ----------
    x_NHWC : read.
    w_BkL, b_BL : from `pack_taps`; read.
    taps : k steps from a patch.
    patches, places : where each place's patch begins in an example's input, and the place in its output.
    num_places : the number of places, without those that are repeated.
    num_outputs : filters.
    y_NPQF : overwritten at these places.
    """
    N, P, Q, F = y_NPQF.shape
    x_step, y_step = x_NHWC.shape[1] * x_NHWC.shape[2] * x_NHWC.shape[3], P * Q * F
    B, k, _ = w_BkL.shape
    num_pairs = num_outputs // (2 * LANES)
    narrow = np.empty(SINGLES * LANES, np.float32)
    for n in range(N):
        for pair in range(num_pairs):
            w, f = 2 * pair * k * LANES, 2 * pair * LANES
            for t in range(0, num_places, PAIRS):
                points = points_of(x_NHWC, n * x_step, patches, t, PAIRS)
                sums = block_of_pairs(load(b_BL, f), load(b_BL, f + LANES), PAIRS)
                for tap in range(k):
                    at = w + tap * LANES
                    sums = add_outer(sums, w_BkL, at, at + k * LANES, points, element(taps, tap))
                outputs = points_of(y_NPQF, n * y_step, places, t, PAIRS)
                store_half(sums, 0, outputs, f)
                store_half(sums, 1, outputs, f + LANES)
        for part in range(2 * num_pairs, B):
            w, f = part * k * LANES, _first_of(part, num_outputs)
            bias = load(b_BL, part * LANES)
            for t in range(0, num_places, SINGLES):
                points_1 = points_of(x_NHWC, n * x_step, patches, t, SINGLES)
                sums_1 = block_of_pairs(bias, bias, _HALF_SINGLES)
                for tap in range(k):
                    sums_1 = add_products(sums_1, load(w_BkL, w + tap * LANES), points_1, element(taps, tap))
                if num_outputs < LANES:
                    store_block(sums_1, points_in_steps(narrow, 0, LANES, SINGLES), 0)
                    _store_narrow(narrow, SINGLES, num_outputs, y_NPQF, n * y_step, places, t)
                else:
                    store_block(sums_1, points_of(y_NPQF, n * y_step, places, t, SINGLES), f)


@kernel(_OVER_TAPS)
def depthwise_over_taps(x_NHWC, w_BkL, b_BL, taps, patches, places, num_places, num_outputs, y_NPQF):
    """Convolve each channel with its own filter, at the places of a list. The parameters: see `conv2d_over_taps`."""
    N, P, Q, F = y_NPQF.shape
    x_step, y_step = x_NHWC.shape[1] * x_NHWC.shape[2] * x_NHWC.shape[3], P * Q * F
    B, k, _ = w_BkL.shape
    narrow = np.empty(DEPTHWISE_PLACES * LANES, np.float32)
    for n in range(N):
        for t in range(0, num_places, DEPTHWISE_PLACES):
            points = points_of(x_NHWC, n * x_step, patches, t, DEPTHWISE_PLACES)
            outputs = points_of(y_NPQF, n * y_step, places, t, DEPTHWISE_PLACES)
            for part in range(B):
                c, bias = _first_of(part, num_outputs), load(b_BL, part * LANES)
                sums = block_of_pairs(bias, bias, _HALF_PLACES)
                for tap in range(k):
                    factors = load(w_BkL, (part * k + tap) * LANES)
                    sums = add_scaled(sums, factors, points, element(taps, tap) + c)
                if num_outputs < LANES:
                    store_block(sums, points_in_steps(narrow, 0, LANES, DEPTHWISE_PLACES), 0)
                    _store_narrow(narrow, DEPTHWISE_PLACES, num_outputs, y_NPQF, n * y_step, places, t)
                else:
                    store_block(sums, outputs, c)


@inlined
def _write_filters(dw, num_pairs, B, padded, num_taps, sources, step, num_outputs, slots, start):
    """Copy sums from pairs of parts (tap, two vectors), then single parts (tap, vector), to their filters."""
    for f in range(num_outputs):
        pair = f // (2 * LANES)
        if pair < num_pairs:
            at, width = pair * padded * 2 * LANES + f % (2 * LANES), 2 * LANES
        else:
            part = min(f // LANES, B - 1)
            at, width = part * padded * LANES + f - _first_of(part, num_outputs), LANES
        for tap in range(num_taps):
            store_number(slots, start + element(sources, tap) + f * step, element(dw, at + tap * width))


def sums_size(num_outputs: int, padded_taps: int) -> int:
    """Return how many sums a weight gradient has, for lists of `padded_taps` taps, with those that are repeated."""
    return -(-num_outputs // LANES) * padded_taps * LANES


@always_inlined
def completes_tile(n, num, tile):
    """Return whether example n, of `num`, is the last one of its tile."""
    return n + 1 == num or (n + 1) % tile == 0


@always_inlined
def _add_band(x, x_start, dy, dy_start, taps, num_taps, patches, places, first, last, num_outputs, dw):
    """Add the products at the places `first` … `last`-1 of an example to the sums of all taps and filters."""
    num_pairs, B, padded = num_outputs // (2 * LANES), (num_outputs + LANES - 1) // LANES, taps.size
    for pair in range(num_pairs):
        f = dy_start + 2 * pair * LANES
        for tap in range(0, num_taps, TAP_PAIRS):
            points = points_of(x, x_start, taps, tap, TAP_PAIRS)
            rows = points_in_steps(dw, (pair * padded + tap) * 2 * LANES, 2 * LANES, TAP_PAIRS)
            sums = load_rows(rows, 0, 2)
            for place in range(first, last):
                at = f + element(places, place)
                sums = add_outer(sums, dy, at, at + LANES, points, element(patches, place))
            store_block(sums, rows, 0)
    for part in range(2 * num_pairs, B):
        f = dy_start + _first_of(part, num_outputs)
        for tap in range(0, num_taps, SINGLES):
            points_1 = points_of(x, x_start, taps, tap, SINGLES)
            rows_1 = points_in_steps(dw, (part * padded + tap) * LANES, LANES, SINGLES)
            sums_1 = load_block(rows_1, 0)
            for place in range(first, last):
                delta = load(dy, f + element(places, place))
                sums_1 = add_products(sums_1, delta, points_1, element(patches, place))
            store_block(sums_1, rows_1, 0)


_BACKWARD_WEIGHTS = (
    "void(float32[:,:,:,::1], float32[:,:,:,::1], int64[::1], int64, int64, int64[::1], int64[::1], int64[::1], int64,"
    " int64, int64[::1], int64, float32[::1], float32[:,::1], int64)"
)


@kernel(_BACKWARD_WEIGHTS)
def conv2d_backward_weights_over_taps(
    x_NHWC,
    dy_NPQF,
    numbers_N,
    num,
    tile,
    taps,
    patches,
    places,
    num_places,
    num_outputs,
    sources_k,
    step,
    dw,
    slots_TK,
    weight_start,
):
    """Compute the filter gradients of tiles; that of a tile is complete with its last example.

    dw[k,f] = sum over examples and places of  x[patch + tap k] · dy[place + f]

    Parameters
    ----------
    x_NHWC, dy_NPQF : the input, and the gradient at the output, which may have a border; read.
    numbers_N : the examples' numbers, in their order, of `num`; read.
    tile : examples in a tile; the last tile may have fewer.
    taps, patches, places, num_places, num_outputs : as for `conv2d_over_taps`; a place is one in `dy_NPQF`.
    sources_k, step : where filters are, as for `pack_taps`.
    dw : the sums of a tile, `sums_size` numbers; kept from call to call, read and overwritten.
    slots_TK : a row for each tile; its filters from `weight_start` on are overwritten.
    """
    N, P, Q, F = dy_NPQF.shape
    x_step, dy_step = x_NHWC.shape[1] * x_NHWC.shape[2] * x_NHWC.shape[3], P * Q * F
    K = slots_TK.shape[1]
    k, padded = sources_k.size, taps.size
    num_pairs, B = num_outputs // (2 * LANES), (num_outputs + LANES - 1) // LANES
    for n in range(N):
        if numbers_N[n] % tile == 0:
            dw[:] = 0
        for band in range(0, num_places, BAND):
            last = min(num_places, band + BAND)
            _add_band(x_NHWC, n * x_step, dy_NPQF, n * dy_step, taps, k, patches, places, band, last, num_outputs, dw)
        if completes_tile(numbers_N[n], num, tile):
            start = numbers_N[n] // tile * K + weight_start
            _write_filters(dw, num_pairs, B, padded, k, sources_k, step, num_outputs, slots_TK, start)


@kernel(_BACKWARD_WEIGHTS)
def depthwise_backward_weights_over_taps(
    x_NHWC,
    dy_NPQF,
    numbers_N,
    num,
    tile,
    taps,
    patches,
    places,
    num_places,
    num_outputs,
    sources_k,
    step,
    dw,
    slots_TK,
    weight_start,
):
    """Compute the filter gradients of tiles, of a depthwise convolution.

    dw[k,c] = sum over examples and places of  x[patch + tap k + c] · dy[place + c]

    The parameters are those of `conv2d_backward_weights_over_taps`.
    """
    N, P, Q, F = dy_NPQF.shape
    x_step, dy_step = x_NHWC.shape[1] * x_NHWC.shape[2] * x_NHWC.shape[3], P * Q * F
    K = slots_TK.shape[1]
    k, padded, B = sources_k.size, taps.size, (num_outputs + LANES - 1) // LANES
    for n in range(N):
        if numbers_N[n] % tile == 0:
            dw[:] = 0
        for band in range(0, num_places, BAND):
            last = min(num_places, band + BAND)
            for part in range(B):
                c = _first_of(part, num_outputs)
                for tap in range(0, k, DEPTHWISE_TAPS):
                    points = points_of(x_NHWC, n * x_step + c, taps, tap, DEPTHWISE_TAPS)
                    rows = points_in_steps(dw, (part * padded + tap) * LANES, LANES, DEPTHWISE_TAPS)
                    sums = load_block(rows, 0)
                    for place in range(band, last):
                        delta = load(dy_NPQF, n * dy_step + c + element(places, place))
                        sums = add_scaled(sums, delta, points, element(patches, place))
                    store_block(sums, rows, 0)
        if completes_tile(numbers_N[n], num, tile):
            start = numbers_N[n] // tile * K + weight_start
            _write_filters(dw, 0, B, padded, k, sources_k, step, num_outputs, slots_TK, start)


@kernel("void(float32[:,:,:,::1], UniTuple(int64, 2), int64[::1], int64, int64, float32[::1], float32[:,::1], int64)")
def sum_over_places(dy_NPQF, border, numbers_N, num, tile, total_F, slots_TK, bias_start):
    """Write the sum over each tile's examples and places of `dy_NPQF`, without its border, to its slot.

    The parameters are those of `conv2d_backward_weights_over_taps`; `total_F` is what `dw` is there, and is followed by
    LANES numbers. The sums of a row stay in registers: with 16 filters of 24x24 places, 0.4 of the time.
    """
    N, P, Q, F = dy_NPQF.shape
    for n in range(N):
        if numbers_N[n] % tile == 0:
            total_F[:] = 0
        for p in range(border[0], P - border[0]):
            at = ((n * P + p) * Q + border[1]) * F
            for f in range(0, F, LANES):
                sums = load(total_F, f)
                for place in range(at, at + (Q - 2 * border[1]) * F, F):
                    sums = add(sums, load(dy_NPQF, place + f))
                store(total_F, f, sums)
        if completes_tile(numbers_N[n], num, tile):
            for f in range(F):
                store_number(slots_TK, numbers_N[n] // tile * slots_TK.shape[1] + bias_start + f, element(total_F, f))


@kernel("void(float32[:,:,:,::1], float32[:,:,:,::1])")
def flip_filters(w_FCRS, flipped_CFRS):
    """Exchange filters and channels, and turn each filter around: a convolution with them is the gradient's."""
    F, C, R, S = w_FCRS.shape
    for f in range(F):
        for c in range(C):
            for r_s in range(R * S):
                number = element(w_FCRS, (f * C + c) * R * S + r_s)
                store_number(flipped_CFRS, (c * F + f + 1) * R * S - 1 - r_s, number)
