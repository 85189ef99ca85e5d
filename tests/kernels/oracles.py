"""Every operation once more, slow and obvious, with NumPy and SciPy in place of loops; and the gradient check.

Shapes: N examples; C, H, W input channels, rows, columns; F filters; R, S filter rows, columns; P, Q output
rows, columns; D, E dense inputs, outputs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import signal, special


def num_positions(size, window, stride, padding=(0, 0)):
    """Return how many rows and columns of windows fit: floor((size + 2·padding - window) / stride) + 1."""
    return tuple((size[k] + 2 * padding[k] - window[k]) // stride[k] + 1 for k in range(2))


def padded(x_NCHW, padding):
    """Put zeros around each plane."""
    rows, columns = padding
    return np.pad(x_NCHW, ((0, 0), (0, 0), (rows, rows), (columns, columns)))


def dilated(dy_NFPQ, stride):
    """Put stride - 1 zeros between neighbours: the gradient at the outputs of the same operation with stride 1."""
    N, F, P, Q = dy_NFPQ.shape
    spread = np.zeros((N, F, (P - 1) * stride[0] + 1, (Q - 1) * stride[1] + 1), dy_NFPQ.dtype)
    spread[:, :, :: stride[0], :: stride[1]] = dy_NFPQ
    return spread


def conv2d_forward(x_NCHW, w_FCRS, b_F, stride, padding):
    """Correlate the padded planes with each filter, keep every stride-th result, add over channels."""
    x = padded(x_NCHW, padding)
    return np.array(
        [
            [
                b + sum(signal.correlate(plane, w, "valid", "direct") for plane, w in zip(example, w_CRS, strict=True))
                for w_CRS, b in zip(w_FCRS, b_F, strict=True)
            ]
            for example in x
        ]
    )[:, :, :: stride[0], :: stride[1]]


def conv2d_backward_input(dy_NFPQ, w_FCRS, stride, padding, shape_NCHW):
    """Convolve (with flipping) the dilated gradient with each filter; cut off what falls on the padding."""
    N, C, H, W = shape_NCHW
    dx = np.zeros((N, C, H + 2 * padding[0], W + 2 * padding[1]))
    for n, dy_FPQ in enumerate(dilated(dy_NFPQ, stride)):
        for dy_PQ, w_CRS in zip(dy_FPQ, w_FCRS, strict=True):
            for c, w_RS in enumerate(w_CRS):
                reached = signal.convolve(dy_PQ, w_RS, "full", "direct")
                dx[n, c, : reached.shape[0], : reached.shape[1]] += reached
    return dx[:, :, padding[0] : padding[0] + H, padding[1] : padding[1] + W]


def conv2d_backward_weights(x_NCHW, dy_NFPQ, stride, padding, shape_FCRS):
    """Correlate the padded planes with the dilated gradient; cut off the rows and columns that are left over."""
    F, C, R, S = shape_FCRS
    dw = np.zeros(shape_FCRS)
    for x_CHW, dy_FPQ in zip(padded(x_NCHW, padding), dilated(dy_NFPQ, stride), strict=True):
        for f in range(F):
            for c in range(C):
                dw[f, c] += signal.correlate(x_CHW[c], dy_FPQ[f], "valid", "direct")[:R, :S]
    return dw, dy_NFPQ.sum(axis=(0, 2, 3))


def spread_filters(w_FGRS, dilation, groups):
    """Return the filters (F, C, …) of the same convolution without dilation and groups: zeros stand in between."""
    F, G, R, S = w_FGRS.shape
    spread = np.zeros((F, G * groups, (R - 1) * dilation[0] + 1, (S - 1) * dilation[1] + 1), w_FGRS.dtype)
    for f in range(F):
        base = f // (F // groups) * G
        spread[f, base : base + G, :: dilation[0], :: dilation[1]] = w_FGRS[f]
    return spread


def gathered_filters(w_FCRS, dilation, groups):
    """Return the part of `spread_filters` that is not always 0."""
    F, C = w_FCRS.shape[:2]
    G = C // groups
    bases = [f // (F // groups) * G for f in range(F)]
    return np.array([w_FCRS[f, b : b + G, :: dilation[0], :: dilation[1]] for f, b in enumerate(bases)])


def avg_pool_forward(x_NCHW, window, stride, padding=(0, 0)):
    """Return each window's mean; the padding counts as zeros."""
    windows = sliding_window_view(padded(x_NCHW, padding), window, axis=(2, 3))[:, :, :: stride[0], :: stride[1]]
    return windows.mean((4, 5))


def max_pool_forward(x_NCHW, window, stride, padding=(0, 0)):
    """Return each window's maximum, and its place row · W + column (of equal ones the first)."""
    W = x_NCHW.shape[3]
    around = [(0, 0), (0, 0), *((size, size) for size in padding)]
    x_NCHW = np.pad(x_NCHW, around, constant_values=-np.inf)
    windows = sliding_window_view(x_NCHW, window, axis=(2, 3))[:, :, :: stride[0], :: stride[1]]
    flat = windows.reshape(*windows.shape[:4], -1)
    r, s = np.divmod(flat.argmax(-1), window[1])
    p, q = np.indices(flat.shape[2:4])
    return flat.max(-1), (p * stride[0] + r - padding[0]) * W + q * stride[1] + s - padding[1]


def max_pool_backward_input(dy_NCPQ, winner_NCPQ, shape_NCHW):
    """Add each window's gradient at its winner."""
    N, C, H, W = shape_NCHW
    dx = np.zeros((N * C, H * W))
    planes = np.repeat(np.arange(N * C), dy_NCPQ[0, 0].size)
    np.add.at(dx, (planes, winner_NCPQ.ravel()), dy_NCPQ.ravel())
    return dx.reshape(shape_NCHW)


def dense_forward(x_ND, w_ED, b_E):
    """Multiply by the weights and add the bias."""
    return x_ND @ w_ED.T + b_E


def dense_backward_input(dy_NE, w_ED):
    """Multiply by the weights, the other way round."""
    return dy_NE @ w_ED


def dense_backward_weights(x_ND, dy_NE):
    """Return the sums over the examples of the outer products, and of the gradients."""
    return np.einsum("ne,nd->ed", dy_NE, x_ND), dy_NE.sum(axis=0)


def softmax_cross_entropy(logits_NE, labels_N):
    """Return losses, predicted classes, and the gradient at the logits."""
    rows = np.arange(len(labels_N))
    log_probabilities = special.log_softmax(logits_NE, axis=1)
    one_hot = np.eye(logits_NE.shape[1])[labels_N]
    return -log_probabilities[rows, labels_N], logits_NE.argmax(axis=1), np.exp(log_probabilities) - one_hot


def check_gradient(
    function: Callable[[np.ndarray], float], point: np.ndarray, gradient: np.ndarray, *, seed: int = 0
) -> None:
    """Hold <gradient, direction> against a central difference of `function` in a random direction, in float64."""
    assert point.dtype == gradient.dtype == np.float64
    direction = np.random.default_rng(seed).standard_normal(point.shape)
    direction /= np.linalg.norm(direction)
    step = 1e-6
    difference = (function(point + step * direction) - function(point - step * direction)) / (2 * step)
    inner_product = float(np.vdot(gradient, direction))
    scale = max(abs(difference), np.linalg.norm(gradient) / np.sqrt(gradient.size))
    assert abs(inner_product - difference) <= 1e-6 * scale, f"<g, d> = {inner_product!r}, difference {difference!r}"


def unaligned(array: np.ndarray, num_elements: int) -> np.ndarray:
    """Return a C-contiguous copy whose memory begins `num_elements` elements after a boundary of 64 bytes."""
    buffer = np.empty(array.nbytes + 128, np.uint8)
    first = -buffer.ctypes.data % 64 + num_elements * array.itemsize
    copy = buffer[first : first + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
