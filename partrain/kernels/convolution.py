"""Convolution for float32, row by row.

The definition (`loops`) walks over the taps of each output; here each tap walks over a row of outputs, so that
the innermost loop is a run over consecutive numbers that the compiler turns into vector instructions. The run
holds the outputs whose input is inside the image: padding costs no test and no copy.

Shapes: N examples; C, H, W input channels, rows, columns; F filters; R, S filter rows, columns; P, Q output
rows, columns.
"""

from __future__ import annotations

import numpy as np

from partrain.kernels.compile_options import inlined, kernel

_PAIR = "UniTuple(int64, 2)"
_FOUR = "float32[:,:,:,::1]"


@inlined
def _inside(tap, stride, padding, num_inputs, num_outputs):
    """Return the range of outputs p for which the input p·stride + tap - padding exists."""
    first = max(0, -((tap - padding) // stride))
    last = min(num_outputs, (num_inputs - 1 - tap + padding) // stride + 1)
    return first, max(first, last)


@kernel(f"void({_FOUR}, {_FOUR}, float32[::1], {_PAIR}, {_PAIR}, {_FOUR})", fast_math=True)
def conv2d_forward(x_NCHW, w_FCRS, b_F, stride, padding, y_NFPQ):
    """Convolve; see `loops.conv2d_forward`."""
    N, F, P, Q = y_NFPQ.shape
    _, C, R, S = w_FCRS.shape
    _, _, H, W = x_NCHW.shape
    step = np.uint64(stride[1])
    for n in range(N):
        for f in range(F):
            y_NFPQ[n, f] = b_F[f]
            for c in range(C):
                for r in range(R):
                    first_p, last_p = _inside(r, stride[0], padding[0], H, P)
                    for s in range(S):
                        first_q, last_q = _inside(s, stride[1], padding[1], W, Q)
                        first_j = first_q * stride[1] + s - padding[1]
                        weight = w_FCRS[f, c, r, s]
                        for p in range(first_p, last_p):
                            x_W = x_NCHW[n, c, p * stride[0] + r - padding[0], first_j:]
                            y_Q = y_NFPQ[n, f, p, first_q:last_q]
                            for q in range(np.uint64(y_Q.size)):
                                y_Q[q] += weight * x_W[q * step]


@kernel(f"void({_FOUR}, {_FOUR}, {_PAIR}, {_PAIR}, {_FOUR})", fast_math=True)
def conv2d_backward_input(dy_NFPQ, w_FCRS, stride, padding, dx_NCHW):
    """Take the gradient back to the input; see `loops.conv2d_backward_input`."""
    N, F, P, Q = dy_NFPQ.shape
    _, C, R, S = w_FCRS.shape
    _, _, H, W = dx_NCHW.shape
    step = np.uint64(stride[1])
    for n in range(N):
        for c in range(C):
            dx_NCHW[n, c] = 0
            for f in range(F):
                for r in range(R):
                    first_p, last_p = _inside(r, stride[0], padding[0], H, P)
                    for s in range(S):
                        first_q, last_q = _inside(s, stride[1], padding[1], W, Q)
                        first_j = first_q * stride[1] + s - padding[1]
                        weight = w_FCRS[f, c, r, s]
                        for p in range(first_p, last_p):
                            dx_W = dx_NCHW[n, c, p * stride[0] + r - padding[0], first_j:]
                            dy_Q = dy_NFPQ[n, f, p, first_q:last_q]
                            for q in range(np.uint64(dy_Q.size)):
                                dx_W[q * step] += weight * dy_Q[q]


@kernel(f"void({_FOUR}, {_FOUR}, {_PAIR}, {_PAIR}, {_FOUR}, float32[::1])", fast_math=True)
def conv2d_backward_weights(x_NCHW, dy_NFPQ, stride, padding, dw_FCRS, db_F):
    """Add the filter gradient of N examples; see `loops.conv2d_backward_weights`."""
    N, F, P, Q = dy_NFPQ.shape
    _, C, R, S = dw_FCRS.shape
    _, _, H, W = x_NCHW.shape
    step = np.uint64(stride[1])
    for n in range(N):
        for f in range(F):
            db_F[f] += dy_NFPQ[n, f].sum()
            for c in range(C):
                for r in range(R):
                    first_p, last_p = _inside(r, stride[0], padding[0], H, P)
                    for s in range(S):
                        first_q, last_q = _inside(s, stride[1], padding[1], W, Q)
                        first_j = first_q * stride[1] + s - padding[1]
                        total = dw_FCRS[f, c, r, s]
                        for p in range(first_p, last_p):
                            x_W = x_NCHW[n, c, p * stride[0] + r - padding[0], first_j:]
                            dy_Q = dy_NFPQ[n, f, p, first_q:last_q]
                            for q in range(np.uint64(dy_Q.size)):
                                total += dy_Q[q] * x_W[q * step]
                        dw_FCRS[f, c, r, s] = total
