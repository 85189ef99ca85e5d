"""Max pooling for float32, channels last: a vector of channels at a time, with the position of each maximum.

Shapes: N examples; F channels; P, Q rows, columns; I, J the same after pooling.
"""

from __future__ import annotations

import numpy as np

from partrain.kernels.compiler.flags import always_inlined, kernel

from .simd.vectors import (
    LANES,
    add_count,
    broadcast_count,
    element,
    load,
    replaces_maximum,
    select,
    store,
    store_counts,
    store_number,
)


@always_inlined
def maximum_of_four(a, b, c, d, position, Q):
    """Return the maximum of windows of 2x2, whose rows are (a, b) and (c, d), and its position; `a` is at `position`.

    It is that of `max_pool_forward`, without its loops: three times as fast. All are vectors.
    """
    best, winner = a, position
    better = replaces_maximum(b, best)
    best, winner = select(better, b, best), select(better, add_count(position, 1), winner)
    better = replaces_maximum(c, best)
    best, winner = select(better, c, best), select(better, add_count(position, Q), winner)
    better = replaces_maximum(d, best)
    return select(better, d, best), select(better, add_count(position, Q + 1), winner)


_PAIR = "UniTuple(int64, 2)"


@kernel(f"void(float32[:,:,:,::1], {_PAIR}, {_PAIR}, {_PAIR}, float32[:,:,:,::1], int32[:,:,:,::1])")
def max_pool_forward(x_NPQF, window, stride, padding, y_NIJF, winner_NIJF):
    """Write each window's maximum and its position p·Q + q: the first of equal numbers; NaN is the maximum.

    Windows reach over the edge by `padding`; only positions inside the image count. `x_NPQF` is followed by LANES
    numbers that a vector may read.
    """
    N, P, Q, F = x_NPQF.shape
    _, I, J, _ = y_NIJF.shape
    narrow = F < LANES
    one = np.empty(LANES, np.float32)
    one_winner = np.empty(LANES, np.int32)
    of_four = window == (2, 2) and padding == (0, 0)
    for n in range(N):
        for i in range(I):
            top, end_row = i * stride[0] - padding[0], min(P, i * stride[0] - padding[0] + window[0])
            for j in range(J):
                left, end_column = j * stride[1] - padding[1], min(Q, j * stride[1] - padding[1] + window[1])
                row, column = max(0, top), max(0, left)
                corner = row * Q + column
                at = ((n * I + i) * J + j) * F
                for part in range(0, F, LANES):
                    f = max(0, min(part, F - LANES))
                    x = (n * P * Q + corner) * F + f
                    if of_four:
                        best, winner = maximum_of_four(
                            load(x_NPQF, x), load(x_NPQF, x + F), load(x_NPQF, x + Q * F),
                            load(x_NPQF, x + Q * F + F), broadcast_count(corner), Q,
                        )  # fmt: skip
                    else:
                        best, winner = load(x_NPQF, x), broadcast_count(corner)
                        for r in range(end_row - row):
                            for s in range(end_column - column):
                                new = load(x_NPQF, x + (r * Q + s) * F)
                                better = replaces_maximum(new, best)
                                best = select(better, new, best)
                                winner = select(better, broadcast_count(corner + r * Q + s), winner)
                    if narrow and (i * J + j) * F + LANES > I * J * F:
                        store(one, 0, best)
                        store_counts(one_winner, 0, winner)
                        for lane in range(F):
                            y_NIJF[n, i, j, lane] = one[lane]
                            winner_NIJF[n, i, j, lane] = one_winner[lane]
                    else:
                        store(y_NIJF, at + f, best)
                        store_counts(winner_NIJF, at + f, winner)


@kernel("void(float32[:,::1], int64, int64, int32[:,:,:,::1], float32[:,:,:,::1])")
def max_pool_backward_input(d_ND, place_step, channel_step, winner_NIJF, dx_NPQF):
    """Add each window's gradient to the position of its maximum. Overwrites `dx_NPQF`.

    The gradient of position (i, j) and channel f is at (i·J + j)·place_step + f·channel_step of its row of `d_ND`.
    """
    N, I, J, F = winner_NIJF.shape
    _, P, Q, _ = dx_NPQF.shape
    D = d_ND.shape[1]
    dx_NPQF[:] = 0
    for n in range(N):
        for place in range(I * J):
            source, windows = n * D + place * place_step, (n * I * J + place) * F
            for f in range(F):
                at = (n * P * Q + element(winner_NIJF, windows + f)) * F + f
                store_number(dx_NPQF, at, element(dx_NPQF, at) + element(d_ND, source + f * channel_step))
