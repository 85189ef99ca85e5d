"""Convolution for float32, channels last, in explicit vectors.

A patch, the input of one output position, is R runs of S·C consecutive numbers. The inner loop multiplies two vectors
of filters with single numbers of PAIRS patches, and keeps all sums in registers. If fewer filters than fill two vectors
are left, the second vector holds the same filters for the next output row, which shares R-1 rows of input.

Output positions are a flat list, so that blocks of positions may cross rows. This works for any stride and needs no
code for a remainder: the last position is repeated. The order of an output's sum is: bias, then r, then (s, c).

Images contain their padding as a border of zeros, and are followed by LANES numbers that a vector may read.

Shapes: N examples; C, H, W channels, rows, columns with the border; F filters; R, S filter rows, columns; P, Q
output rows, columns.
"""

from __future__ import annotations

import numpy as np

from partrain.kernels.compiler.flags import inlined, kernel

from .simd.blocks import add_outer, add_outer_half, block_of_pairs, points_of, rectify, store_half
from .simd.narrow import copy_narrow
from .simd.vectors import LANES, PAIRS, element, load, store_number


def packed_shape(filter_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the shape of filters (F, C, R, S) after `pack_filters`."""
    F, C, R, S = filter_shape
    return R, S * C, max(F, LANES)


@kernel("void(float32[:,:,:,::1], float32[::1], float32[:,:,::1], float32[::1])")
def pack_filters(w_FCRS, b_F, w_RKF, packed_b_F):
    """Copy the filters to (R, S·C, F), and the biases; both are at least LANES wide, with zeros that are kept."""
    F, C, R, S = w_FCRS.shape
    for f in range(F):
        packed_b_F[f] = b_F[f]
        for c in range(C):
            for r in range(R):
                for s in range(S):
                    w_RKF[r, s * C + c, f] = w_FCRS[f, c, r, s]


@inlined
def grid_offsets(rows, columns, row_step, column_step, padding):
    """Return row*row_step + column*column_step of each position of a grid, by rows; the last one is repeated."""
    offsets = np.empty(rows * columns + padding, np.int64)
    t = 0
    for row in range(rows):
        for column in range(columns):
            store_number(offsets, t, row * row_step + column * column_step)
            t += 1
    for more in range(padding):
        store_number(offsets, t + more, element(offsets, t - 1))
    return offsets


@inlined
def _row_pair_offsets(rows, columns, row_step, column_step, padding):
    """Return the same for the upper row of each pair of rows; the last pair may overlap the one before."""
    pairs = (rows + 1) // 2
    offsets = grid_offsets(pairs, columns, 2 * row_step, column_step, padding)
    for t in range((pairs - 1) * columns, offsets.size):
        offsets[t] -= (2 * pairs - rows) * row_step
    return offsets


@inlined
def _strip(
    x,
    x_start,
    patches,
    w,
    w_start,
    second_w,
    w_step,
    taps,
    first_taps,
    both_taps,
    b,
    f,
    second_b,
    rectified,
    y,
    y_start,
    places,
    second_y,
):
    """Compute one strip (two vectors of filters, or one for two rows) of an example's output."""
    first_bias, second_bias = load(b, f), load(b, f + second_b)
    for t in range(0, patches.size - PAIRS, PAIRS):
        points = points_of(x, x_start, patches, t, PAIRS)
        sums = block_of_pairs(first_bias, second_bias, PAIRS)
        for k in range(min(first_taps, both_taps)):
            sums = add_outer_half(sums, 0, w, w_start + k * w_step, points, element(taps, k))
        for k in range(first_taps, both_taps):
            sums = add_outer(sums, w, w_start + k * w_step, w_start + k * w_step + second_w, points, element(taps, k))
        for k in range(max(first_taps, both_taps), taps.size):
            sums = add_outer_half(sums, 1, w, w_start + k * w_step + second_w, points, element(taps, k))
        if rectified:
            sums = rectify(sums)
        outputs = points_of(y, y_start, places, t, PAIRS)
        store_half(sums, 0, outputs, f)
        store_half(sums, 1, outputs, f + second_y)


@kernel("void(float32[:,:,:,::1], float32[:,:,::1], float32[::1], UniTuple(int64, 2), boolean, float32[:,:,:,::1])")
def conv2d_forward(x_NHWC, w_RKF, b_F, stride, rectified, y_NPQF):
    """Convolve; then, if `rectified`, take max(y, 0).

    y[n,p,q,f] = b[f] + sum over r,s,c of  x[n, p·stride+r, q·stride+s, c] · w[f,c,r,s]

    Parameters
    ----------
    x_NHWC : bordered images; read.
    w_RKF, b_F : from `pack_filters`; read.
    stride : rows, columns.
    y_NPQF : overwritten.
    """
    N, H, W, C = x_NHWC.shape
    R, run, w_step = w_RKF.shape
    _, P, Q, F = y_NPQF.shape
    narrow = F < LANES  # through a buffer of full vectors
    y = np.empty(P * Q * LANES, np.float32) if narrow else y_NPQF.reshape(-1)
    y_step = max(F, LANES)
    column_step, row_step = stride[1] * C, stride[0] * W * C
    patches = grid_offsets(P, Q, row_step, column_step, PAIRS)
    places = grid_offsets(P, Q, Q * y_step, y_step, PAIRS)
    taps = grid_offsets(R, run, W * C, 1, 0)
    # The lower row of a pair begins `row_taps` taps later; a single row has no lower one.
    paired = P > 1
    pair_patches = _row_pair_offsets(P, Q, row_step, column_step, PAIRS) if paired else patches
    pair_places = _row_pair_offsets(P, Q, Q * y_step, y_step, PAIRS) if paired else places
    row_taps = stride[0] * run if paired else 0
    pair_taps = grid_offsets(R + stride[0] if paired else R, run, W * C, 1, 0)
    lower = Q * y_step if paired else 0
    for n in range(N):
        x_start = n * H * W * C
        y_start = 0 if narrow else n * P * Q * F
        for strip in range(0, F, 2 * LANES):
            if strip + 2 * LANES <= F:
                _strip(x_NHWC, x_start, patches, w_RKF, strip, LANES, w_step, taps, 0, R * run,
                       b_F, strip, LANES, rectified, y, y_start, places, LANES)  # fmt: skip
            else:
                for part in range(strip, F, LANES):
                    f = max(0, min(part, F - LANES))
                    _strip(x_NHWC, x_start, pair_patches, w_RKF, f, -row_taps * w_step, w_step, pair_taps,
                           row_taps, R * run, b_F, f, 0, rectified, y, y_start, pair_places, lower)  # fmt: skip
        if narrow:
            copy_narrow(y, F, y_NPQF, n * P * Q * F, P * Q)
