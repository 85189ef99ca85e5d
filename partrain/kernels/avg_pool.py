"""Average pooling for float32, channels last. The sum of a window has the order of its rows and columns.

Shapes: N examples; H, W, C rows, columns, channels; P, Q rows, columns after pooling.
"""

from __future__ import annotations

import numpy as np

from partrain.kernels.compiler.flags import kernel

from .simd.vectors import element, store_number

_PAIR = "UniTuple(int64, 2)"


@kernel(f"void(float32[:,:,:,::1], {_PAIR}, {_PAIR}, {_PAIR}, float32[:,:,:,::1])")
def avg_pool_forward(x_NHWC, window, stride, padding, y_NPQC):
    """Write the mean of each window; what lies outside the image counts as zeros."""
    N, H, W, C = x_NHWC.shape
    _, P, Q, _ = y_NPQC.shape
    size = np.float32(window[0] * window[1])
    total = np.empty(C, np.float32)  # not `y_NPQC`: LLVM knows that nothing else lies here
    for n in range(N):
        for p in range(P):
            i = p * stride[0] - padding[0]
            for q in range(Q):
                j = q * stride[1] - padding[1]
                total[:] = 0
                for row in range(max(0, i), min(H, i + window[0])):
                    for column in range(max(0, j), min(W, j + window[1])):
                        at = ((n * H + row) * W + column) * C
                        for c in range(C):
                            store_number(total, c, element(total, c) + element(x_NHWC, at + c))
                at = ((n * P + p) * Q + q) * C
                for c in range(C):
                    store_number(y_NPQC, at + c, element(total, c) / size)


@kernel(f"void(float32[:,::1], int64, int64, {_PAIR}, {_PAIR}, {_PAIR}, {_PAIR}, float32[:,:,:,::1])")
def avg_pool_backward_input(d_ND, place_step, channel_step, window, stride, padding, output_size, dx_NHWC):
    """Add each window's gradient, divided by the window's size, to all its positions. Overwrites `dx_NHWC`.

    The gradient of position (p, q) and channel c is at (p·Q + q)·place_step + c·channel_step of its row of `d_ND`.
    """
    N, H, W, C = dx_NHWC.shape
    P, Q = output_size
    size = np.float32(window[0] * window[1])
    share = np.empty(C, np.float32)
    # Windows that are neighbours, and reach every position, write each number once.
    writes_once = stride == window and padding == (0, 0) and P * window[0] == H and Q * window[1] == W
    if not writes_once:
        dx_NHWC[:] = 0
    for n in range(N):
        for p in range(P):
            i = p * stride[0] - padding[0]
            for q in range(Q):
                j = q * stride[1] - padding[1]
                source = n * d_ND.shape[1] + (p * Q + q) * place_step
                for c in range(C):
                    store_number(share, c, element(d_ND, source + c * channel_step) / size)
                for row in range(max(0, i), min(H, i + window[0])):
                    for column in range(max(0, j), min(W, j + window[1])):
                        at = ((n * H + row) * W + column) * C
                        if writes_once:
                            for c in range(C):
                                store_number(dx_NHWC, at + c, element(share, c))
                        else:
                            for c in range(C):
                                store_number(dx_NHWC, at + c, element(dx_NHWC, at + c) + element(share, c))
