"""Convolution of images with one channel, followed by a max pooling of 2x2, for float32.

The lanes of a vector are neighbouring windows of a row, not filters, so that few filters fill them. The even and the
odd columns of an image lie apart: then the numbers that a tap multiplies are neighbours, too. The four outputs of a
window are the lanes of four vectors. An output's sum has the order of `convolution.conv2d_forward`.

Shapes: N examples; H, W rows, columns with the border; F filters; R, S filter rows, columns; P, Q output rows, columns;
I, J the same after pooling.
"""

from __future__ import annotations

import numpy as np

from partrain.kernels.compiler.flags import always_inlined, inlined, kernel

from .max_pool import maximum_of_four
from .simd.blocks import add_squares, load_rows, points_in_steps, rectify, store_block
from .simd.compression import load_counts
from .simd.narrow import copy_narrow
from .simd.transposition import every_second, transpose, transposed
from .simd.vectors import LANES, element, load, store, store_counts, store_number

# Filters whose sums stay in registers at once, four vectors each, and the number of these. More gain nothing.
FILTERS = 3
SUMS = 4 * FILTERS


def products(F: int, P: int, Q: int) -> int:
    """Return the multiply-adds of a tap in all lanes, with those that are not used."""
    return 4 * (P // 2) * (-(-(Q // 2) // LANES) * LANES) * (-(-F // FILTERS) * FILTERS)


@inlined
def _split_columns(x, start, H, W, step, halves):
    """Copy an image's even and odd columns; those of row h begin at 2·h·step and (2·h + 1)·step."""
    for h in range(H):
        row, even, odd = start + h * W, 2 * h * step, (2 * h + 1) * step
        if W >= 2 * LANES:
            for part in range(0, W, 2 * LANES):
                column = min(part, (W - 2 * LANES) // 2 * 2)
                first, second = load(x, row + column), load(x, row + column + LANES)
                store(halves, even + column // 2, every_second(first, second, 0))
                store(halves, odd + column // 2, every_second(first, second, 1))
        else:
            for column in range(W):
                store_number(halves, (odd if column % 2 else even) + column // 2, element(x, row + column))
        if W % 2:
            store_number(halves, even + W // 2, element(x, row + W - 1))


@inlined
def _channels_last(planes, F, size, groups, target, start):
    """Copy planes, at least LANES of them, of `size` numbers each, to channels last; `groups` is scratch."""
    if F >= LANES:
        transpose(planes, 0, F, size, target, start, F)
        return
    for t in range(0, size, LANES):
        at = min(t, size - LANES)
        square = load_rows(points_in_steps(planes, at, size, LANES), 0, 1)
        store_block(transposed(square), points_in_steps(groups, at * LANES, LANES, LANES), 0)
    copy_narrow(groups, F, target, start, size)


@always_inlined
def _compute_outputs(halves, start, step, columns, w, R, S, biases, first, rectified, outputs):
    """Compute the outputs of LANES windows, whose first number is at `start`, for FILTERS filters from `first` on."""
    sums = load_rows(points_in_steps(biases, first * 4 * LANES, 4 * LANES, FILTERS), 0, 4)
    filters = points_in_steps(w, first * R * S, R * S, FILTERS)
    k = 0
    for r in range(R):
        row = start + 2 * r * step
        for s in range(S):
            left, right = row + element(columns, s), row + element(columns, s + 1)
            sums = add_squares(sums, halves, left, right, 2 * step, filters, k)
            k += 1
    if rectified:
        sums = rectify(sums)
    store_block(sums, points_in_steps(outputs, 0, LANES, SUMS), 0)


@inlined
def _pool(outputs, corner, Q, start, size, planes, winners):
    """Write the maxima of windows of one row, and their positions, to the planes of FILTERS filters."""
    for f in range(FILTERS):
        y, at = 4 * f * LANES, start + f * size
        best, which = maximum_of_four(
            load(outputs, y), load(outputs, y + LANES), load(outputs, y + 2 * LANES), load(outputs, y + 3 * LANES),
            corner, Q,
        )  # fmt: skip
        store(planes, at, best)
        store_counts(winners, at, which)


@kernel("void(float32[:,:,:,::1], float32[:,:,:,::1], float32[::1], boolean, float32[:,:,:,::1], int32[:,:,:,::1])")
def conv2d_pooled_forward(x_NHW1, w_F1RS, b_F, rectified, pooled_NIJF, winner_NIJF):
    """Convolve with stride 1; then, if `rectified`, take max(y, 0); then take the maxima of windows of 2x2.

    Parameters
    ----------
    x_NHW1 : bordered images; read.
    w_F1RS, b_F : filters and biases; read.
    pooled_NIJF, winner_NIJF : the maxima and their positions p·Q + q; overwritten. J is at least LANES.
    """
    N, H, W, _ = x_NHW1.shape
    _, _, R, S = w_F1RS.shape
    _, I, J, F = pooled_NIJF.shape
    Q = W - S + 1
    step = W // 2 + LANES
    halves = np.zeros(2 * H * step, np.float32)
    columns = np.empty(S + 1, np.int64)
    for s in range(S + 1):
        columns[s] = s % 2 * step + s // 2
    num_filters = max(F, FILTERS)
    w, biases = np.zeros(num_filters * R * S, np.float32), np.zeros(num_filters * 4 * LANES, np.float32)
    for f in range(F):
        for k in range(R * S):
            store_number(w, f * R * S + k, element(w_F1RS, f * R * S + k))
        for lane in range(4 * LANES):
            store_number(biases, f * 4 * LANES + lane, element(b_F, f))
    outputs = np.empty(SUMS * LANES, np.float32)
    corners = np.empty(I * J, np.int32)
    for i in range(I):
        for j in range(J):
            corners[i * J + j] = 2 * i * Q + 2 * j
    size = I * J
    planes = np.empty(max(num_filters, LANES) * size, np.float32)
    winners, groups = np.empty(max(num_filters, LANES) * size, np.int32), np.empty(size * LANES, np.float32)
    for n in range(N):
        _split_columns(x_NHW1, n * H * W, H, W, step, halves)
        for i in range(I):
            for part in range(0, J, LANES):
                j = min(part, J - LANES)
                corner = load_counts(corners, i * J + j)
                for group in range(0, F, FILTERS):
                    first = max(0, min(group, F - FILTERS))
                    _compute_outputs(
                        halves, 4 * i * step + j, step, columns, w, R, S, biases, first, rectified, outputs
                    )
                    _pool(outputs, corner, Q, first * size + i * J + j, size, planes, winners)
        _channels_last(planes, F, size, groups, pooled_NIJF, n * size * F)
        _channels_last(winners.view(np.float32), F, size, groups, winner_NIJF.view(np.float32), n * size * F)
