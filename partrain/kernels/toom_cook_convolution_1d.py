"""Toom-Cook convolutions in one dimension for float32: F(4, 5) along the columns, for filters (F, C, R, 5).

A tile has four neighbouring outputs of a row. The products of its n points are added over the channels and the filter's
rows. For filters of 5x5, two dimensions need fewer products, but more transforms and larger tiles: one dimension is
faster where there are few channels, or where tiles of 4x4 reach far over the edge.

kernels.toom_cook_convolution explains the rest and has the letters; T taps (r, c) of a point.
"""

from __future__ import annotations

import numpy as np

from partrain.kernels.compiler.flags import kernel
from partrain.kernels.toom_cook import POINTS_OF_5, filter_transform, input_transform, output_transform

from .simd.blocks import store_in_steps
from .simd.linear_maps import linear_map
from .simd.vectors import LANES, element, load, store_number
from .toom_cook_convolution import (
    FILTERS_SIGNATURE,
    FORWARD_SIGNATURE,
    GAP,
    SUMS,
    TILE,
    filters_last,
    first_of,
    multiply,
    num_parts,
    write_outputs,
)

_input_to_8 = linear_map(input_transform(POINTS_OF_5))
_filter_to_8 = linear_map(filter_transform(POINTS_OF_5, 5))
_output_from_8 = linear_map(output_transform(POINTS_OF_5, TILE))
# Tiles that are transformed at once, so that they stay in the second-level cache.
BAND = 128


def transformed_shape(filter_shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return the shape (K, B, T, L) of filters (F, C, R, 5) after `transform_filters_1d`."""
    F, C, R, _ = filter_shape
    return 8, -(-F // LANES), R * C, LANES


@kernel(FILTERS_SIGNATURE)
def transform_filters_1d(w_FCRS, b_F, u_KBTL, b_L):
    """Transform filters (F, C, R, 5) along their columns, and copy the biases to at least LANES numbers."""
    F, C, R, S = w_FCRS.shape
    _, B, T, _ = u_KBTL.shape
    taps, width = filters_last(w_FCRS)
    for f in range(F):
        store_number(b_L, f, element(b_F, f))
    for c in range(C):
        for r in range(R):
            for b in range(B):
                points = _filter_to_8(taps, (c * R + r) * S * width + first_of(b, F), width)
                store_in_steps(points, u_KBTL, (b * T + r * C + c) * LANES, B * T * LANES)


@kernel(FORWARD_SIGNATURE)
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
    num_bands = max(1, P * tiles // BAND)
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
                        points = _input_to_8(x_NHWC, at + first_of(a, C), C)
                        store_in_steps(points, v, a * v_part + (h * tiles + t) * LANES, v_step)
            multiply(v, v_step, v_part, tiles * LANES, R, C, u_KBTL, m, m_step, m_part, rows * tiles)
            for row in range(0, rows, 2 if pools else 1):
                for b in range(B):
                    f = first_of(b, F)
                    write_outputs(_output_from_8, m, b * m_part + row * tiles * LANES, tiles * LANES, LANES, m_step,
                                  load(b_L, f), rectified, n, p + row, f, y_NPQF, pooled_NIJF,
                                  winner_NIJF, y, winner)  # fmt: skip
