"""Pooling as the loops of its formula: the definition that the fast kernels are tested against.

Shapes: N examples; C, H, W channels, rows, columns; P, Q output rows, columns. kernels.loops says what the arrays are
like.
"""

from __future__ import annotations

import math

from partrain.kernels.compiler.flags import kernel

_IMAGES, _PAIR = "{float}[:,:,:,::1]", "UniTuple(int64, 2)"


@kernel(f"void({_IMAGES}, {_PAIR}, {_PAIR}, {_PAIR}, {_IMAGES}, int64[:,:,:,::1])")
def max_pool_forward(x_NCHW, window, stride, padding, y_NCPQ, winner_NCPQ):
    """Write the maximum of each window, and its position.

    y[n,c,p,q] = max over r < window[0], s < window[1] of  x[n, c, p·stride+r-padding, q·stride+s-padding]

    Only positions inside the image count: each window has one, as the padding is at most half of it.

    Parameters
    ----------
    winner_NCPQ : position of the maximum in its plane, row · W + column; the first of equal numbers. Written.
    """
    N, C, P, Q = y_NCPQ.shape
    _, _, H, W = x_NCHW.shape
    for n in range(N):
        for c in range(C):
            for p in range(P):
                for q in range(Q):
                    top, left = max(0, p * stride[0] - padding[0]), max(0, q * stride[1] - padding[1])
                    best = x_NCHW[n, c, top, left]
                    winner = top * W + left
                    for i in range(top, min(H, p * stride[0] - padding[0] + window[0])):
                        for j in range(left, min(W, q * stride[1] - padding[1] + window[1])):
                            if x_NCHW[n, c, i, j] > best or math.isnan(x_NCHW[n, c, i, j]):
                                best = x_NCHW[n, c, i, j]
                                winner = i * W + j
                    y_NCPQ[n, c, p, q] = best
                    winner_NCPQ[n, c, p, q] = winner


@kernel("void({float}[:,:,:,::1], int64[:,:,:,::1], {float}[:,:,:,::1])")
def max_pool_backward_input(dy_NCPQ, winner_NCPQ, dx_NCHW):
    """Add each window's gradient to the position of its maximum. Overwrites `dx_NCHW`."""
    N, C, P, Q = dy_NCPQ.shape
    W = dx_NCHW.shape[3]
    dx_NCHW[:] = 0
    for n in range(N):
        for c in range(C):
            for p in range(P):
                for q in range(Q):
                    winner = winner_NCPQ[n, c, p, q]
                    dx_NCHW[n, c, winner // W, winner % W] += dy_NCPQ[n, c, p, q]


@kernel(f"void({_IMAGES}, {_PAIR}, {_PAIR}, {_PAIR}, {_IMAGES})")
def avg_pool_forward(x_NCHW, window, stride, padding, y_NCPQ):
    """Write the mean of each window.

    y[n,c,p,q] = (sum over r,s of  x[n, c, p·stride+r-padding, q·stride+s-padding]) / (window[0] · window[1])

    where x is 0 outside its rows and columns.
    """
    N, C, P, Q = y_NCPQ.shape
    _, _, H, W = x_NCHW.shape
    size = x_NCHW.dtype.type(window[0] * window[1])
    for n in range(N):
        for c in range(C):
            for p in range(P):
                for q in range(Q):
                    total = x_NCHW.dtype.type(0)
                    for r in range(window[0]):
                        for s in range(window[1]):
                            i, j = p * stride[0] + r - padding[0], q * stride[1] + s - padding[1]
                            if 0 <= i < H and 0 <= j < W:
                                total += x_NCHW[n, c, i, j]
                    y_NCPQ[n, c, p, q] = total / size


@kernel(f"void({_IMAGES}, {_PAIR}, {_PAIR}, {_PAIR}, {_IMAGES})")
def avg_pool_backward_input(dy_NCPQ, window, stride, padding, dx_NCHW):
    """Add each window's gradient, divided by the window's size, to all its positions. Overwrites `dx_NCHW`."""
    N, C, P, Q = dy_NCPQ.shape
    _, _, H, W = dx_NCHW.shape
    size = dx_NCHW.dtype.type(window[0] * window[1])
    dx_NCHW[:] = 0
    for n in range(N):
        for c in range(C):
            for p in range(P):
                for q in range(Q):
                    share = dy_NCPQ[n, c, p, q] / size
                    for r in range(window[0]):
                        for s in range(window[1]):
                            i, j = p * stride[0] + r - padding[0], q * stride[1] + s - padding[1]
                            if 0 <= i < H and 0 <= j < W:
                                dx_NCHW[n, c, i, j] += share
