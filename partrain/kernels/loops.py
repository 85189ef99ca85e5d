"""Every operation as the loops of its formula: the definition that the fast kernels are tested against.

Shapes: N examples; C, H, W input channels, rows, columns; F filters; R, S filter rows, columns; P, Q output
rows, columns; D, E dense inputs, outputs; T tiles; K parameters. Arrays are C-contiguous, of one
floating-point type; labels, predictions and positions are int64. Outputs come last, are owned by the caller,
and are written in place. Shapes are checked once, in network.layers.

A comparison with NaN is false. Comparisons that select a value are written so that NaN is selected: a loss that is not
finite must be seen.
"""

from __future__ import annotations

import math

import numpy as np

from partrain.kernels.compiler.flags import kernel
from partrain.kernels.elementary_inlined import exp, log


@kernel(
    "void(uint8[:,:,:,::1], int64[::1], {float}[::1], {float}[::1], {float}[:,:,:,::1])",
    "void(float32[:,:,:,::1], int64[::1], {float}[::1], {float}[::1], {float}[:,:,:,::1])",
)
def gather_normalised(images_MCHW, indices_N, mean_C, inverse_std_C, x_NCHW):
    """Copy the examples `indices_N` out of all M images, as (pixel - mean) · inverse_std of their channel."""
    N, C, H, W = x_NCHW.shape
    for n in range(N):
        for c in range(C):
            for i in range(H):
                for j in range(W):
                    pixel = x_NCHW.dtype.type(images_MCHW[indices_N[n], c, i, j])
                    x_NCHW[n, c, i, j] = (pixel - mean_C[c]) * inverse_std_C[c]


@kernel("void({float}[::1], {float}[::1])")
def relu_forward(x, y):
    """y = max(x, 0), over all elements."""
    for k in range(x.size):
        y[k] = 0 if x[k] < 0 else x[k]


@kernel("void({float}[::1], {float}[::1], {float}[::1])")
def relu_backward_input(dy, y, dx):
    """dx = dy where y > 0, else 0."""
    for k in range(y.size):
        dx[k] = dy[k] if y[k] > 0 else 0


@kernel("void({float}[:,::1], {float}[:,::1], {float}[::1], {float}[:,::1])")
def dense_forward(x_ND, w_ED, b_E, y_NE):
    """y[n,e] = b[e] + sum over d of  w[e,d] · x[n,d]."""
    N, D = x_ND.shape
    E = w_ED.shape[0]
    for n in range(N):
        for e in range(E):
            total = b_E[e]
            for d in range(D):
                total += w_ED[e, d] * x_ND[n, d]
            y_NE[n, e] = total


@kernel("void({float}[:,::1], {float}[:,::1], {float}[:,::1])")
def dense_backward_input(dy_NE, w_ED, dx_ND):
    """dx[n,d] = sum over e of  dy[n,e] · w[e,d]: overwrites `dx_ND`."""
    N, D = dx_ND.shape
    E = w_ED.shape[0]
    dx_ND[:] = 0
    for n in range(N):
        for e in range(E):
            for d in range(D):
                dx_ND[n, d] += dy_NE[n, e] * w_ED[e, d]


@kernel("void({float}[:,::1], {float}[:,::1], {float}[:,::1], {float}[::1])")
def dense_backward_weights(x_ND, dy_NE, dw_ED, db_E):
    """Sum the weight gradient of N examples, in their order; overwrites `dw_ED` and `db_E`.

    dw[e,d] = sum over n of  dy[n,e] · x[n,d];   db[e] = sum over n of  dy[n,e]
    """
    N, D = x_ND.shape
    E = dw_ED.shape[0]
    dw_ED[:] = 0
    db_E[:] = 0
    for e in range(E):
        for n in range(N):
            db_E[e] += dy_NE[n, e]
            for d in range(D):
                dw_ED[e, d] += dy_NE[n, e] * x_ND[n, d]


@kernel("void({float}[:,::1], int64[::1], float64[::1], int64[::1], float64[::1], {float}[:,::1])")
def softmax_cross_entropy(logits_NE, labels_N, loss_N, predicted_N, confidence_N, dlogits_NE):
    """Compute each example's loss, its most probable class and that class' probability, and the gradient at the logits.

    With t the label:   loss = log(sum over e of exp(z[e] - max z)) - (z[t] - max z)
                        confidence = 1 / sum
                        dz[e] = exp(z[e] - max z) / sum - (1 if e = t else 0)

    Subtracting the maximum does not change the result; it keeps exp from overflowing. Computed in float64.
    """
    N, E = logits_NE.shape
    powers_E = np.empty(E)
    for n in range(N):
        best = 0
        for e in range(1, E):
            if logits_NE[n, e] > logits_NE[n, best] or math.isnan(logits_NE[n, e]):
                best = e
        highest = np.float64(logits_NE[n, best])
        for e in range(E):
            powers_E[e] = exp(np.float64(logits_NE[n, e]) - highest)
        total = 0.0
        for e in range(E):
            total += powers_E[e]
        for e in range(E):
            dlogits_NE[n, e] = powers_E[e] / total
        dlogits_NE[n, labels_N[n]] -= 1
        loss_N[n] = log(total) - (np.float64(logits_NE[n, labels_N[n]]) - highest)
        predicted_N[n] = best
        confidence_N[n] = 1 / total


@kernel("void({float}[:,::1], {float}[::1])")
def sum_slots(slots_TK, total_K):
    """total[k] = slots[0,k] + slots[1,k] + …, in the order of the slots. Overwrites `total_K`."""
    total_K[:] = 0
    for t in range(slots_TK.shape[0]):
        for k in range(total_K.size):
            total_K[k] += slots_TK[t, k]


@kernel("int64({float}[::1])")
def first_not_finite(values):
    """Return the index of the first NaN or infinity, or -1."""
    finite = True
    for k in range(values.size):  # without a branch, so that it runs in vectors
        finite &= abs(values[k]) < np.inf
    if finite:
        return -1
    for k in range(values.size):
        if not abs(values[k]) < np.inf:
            return k
    return -1
