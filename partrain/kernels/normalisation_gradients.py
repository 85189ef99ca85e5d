"""The backward pass of batch and group normalisation, with a ReLU behind it: see kernels.channel_normalisation.

    dx = dy · A + (x - mean) · B + K        A, B, K: see `_gradient_coefficients`

The ReLU's mask is computed from x once more, which takes less time than reading y.

Shapes: as in kernels.channel_normalisation; T tiles.
"""

from __future__ import annotations

import numpy as np

from partrain.kernels.compiler.flags import always_inlined, inlined, kernel

from .channel_normalisation import CHUNK, OUTPUT, first_channel
from .simd.vectors import (
    LANES,
    add,
    broadcast,
    less_equal,
    load,
    multiply_add,
    select,
    store,
    subtract,
)


@always_inlined
def _masked(dy, k, difference, a, b, rectified):
    """Return the gradient at the normalised number: that at the ReLU's output, if it is above 0."""
    gradient = load(dy, k)
    if rectified:
        zero = broadcast(np.float32(0))
        gradient = select(less_equal(multiply_add(difference, a, b), zero), zero, gradient)
    return gradient


@inlined
def _add_gradient_sums_of_chunk(x, dy, start, count, C, mean, a, b, rectified, plain, scaled):
    """Add the sums over a chunk of  dy  and of  dy · (x - mean)."""
    whole = count - count % 2
    for c in range(0, C, LANES):
        mean_c, a_c, b_c = load(mean, c), load(a, c), load(b, c)
        zero = broadcast(np.float32(0))
        s0, s1, t0, t1 = zero, zero, zero, zero
        k = start + c
        for _ in range(0, whole, 2):
            d0, d1 = subtract(load(x, k), mean_c), subtract(load(x, k + C), mean_c)
            g0, g1 = _masked(dy, k, d0, a_c, b_c, rectified), _masked(dy, k + C, d1, a_c, b_c, rectified)
            s0, s1, t0, t1 = add(s0, g0), add(s1, g1), multiply_add(g0, d0, t0), multiply_add(g1, d1, t1)
            k += 2 * C
        if whole < count:
            d0 = subtract(load(x, k), mean_c)
            g0 = _masked(dy, k, d0, a_c, b_c, rectified)
            s0, t0 = add(s0, g0), multiply_add(g0, d0, t0)
        store(plain, c, add(load(plain, c), add(s0, s1)))
        store(scaled, c, add(load(scaled, c), add(t0, t1)))


@kernel(
    "void(float32[:,::1], float32[:,::1], int64[::1], float32[::1], float32[::1], int64, boolean, float32[:,::1],"
    " float32[:,::1], float32[:,::1], float32[:,::1])"
)
def add_gradient_sums(x_ND, dy_ND, numbers_N, w_C, b_C, rows, rectified, mean_SW, inverse_SW, plain_SW, scaled_SW):
    """Write the sums of  dy  and of  dy · (x - mean); those of a set are complete with its last row.

    Parameters
    ----------
    x_ND, numbers_N, w_C, b_C, rows, rectified, mean_SW, inverse_SW : as `normalise` was given.
    dy_ND : gradient at the output; read.
    plain_SW, scaled_SW : the sums over the rows of a set that came before are read, and overwritten.
    """
    N, D = x_ND.shape
    C, W = w_C.size, mean_SW.shape[1]
    P = D // C
    a, b = np.zeros(W, np.float32), np.zeros(W, np.float32)
    b[:C] = b_C
    for n in range(N):
        s, before = divmod(numbers_N[n], rows)
        mean, plain, scaled = mean_SW[s], plain_SW[s], scaled_SW[s]
        if before == 0:
            plain[:] = 0
            scaled[:] = 0
        for c in range(C):
            a[c] = w_C[c] * inverse_SW[s, c]
        for p in range(0, P, CHUNK):
            _add_gradient_sums_of_chunk(
                x_ND, dy_ND, n * D + p * C, min(CHUNK, P - p), C, mean, a, b, rectified, plain, scaled
            )


@inlined
def _gradient_coefficients(plain, scaled, w, inverse, size, count, A, B, K):
    """Write the coefficients of dx for groups of `size` channels that share their statistics of `count` numbers.

    With dz = dy · w the gradient at z = (x - mean) · inverse:

        dx = inverse · (dz - mean of dz - z · mean of (dz · z))
    """
    for g in range(0, w.size, size):
        of_dz, of_product = 0.0, 0.0
        for c in range(g, g + size):
            of_dz += np.float64(w[c]) * np.float64(plain[c])
            of_product += np.float64(w[c]) * np.float64(scaled[c])
        factor = np.float64(inverse[g])
        of_difference = np.float32(-(factor * factor * factor) * (of_product / count))
        constant = np.float32(-factor * (of_dz / count))
        for c in range(g, g + size):
            A[c], B[c], K[c] = w[c] * inverse[c], of_difference, constant


_THREE = "float32[:,::1], float32[:,::1], float32[:,::1]"


@kernel(f"void(int64, int64, int64, float32[::1], {_THREE}, {_THREE})")
def finish_batch_gradient(N, rows, P, w_C, inverse_SW, plain_SW, scaled_SW, A_SW, B_SW, K_SW):
    """Write the coefficients of the gradient at the input, for the sets of `rows` of N rows."""
    for s in range((N + rows - 1) // rows):
        count = (min(N, (s + 1) * rows) - s * rows) * P
        _gradient_coefficients(plain_SW[s], scaled_SW[s], w_C, inverse_SW[s], 1, count, A_SW[s], B_SW[s], K_SW[s])


@kernel(f"void(int64, int64, float32[::1], {_THREE}, {_THREE})")
def finish_group_gradient(P, G, w_C, inverse_NW, plain_NW, scaled_NW, A_NW, B_NW, K_NW):
    """Write the coefficients of the gradient at the input, for G groups of channels in each row."""
    size = w_C.size // G
    for n in range(inverse_NW.shape[0]):
        _gradient_coefficients(plain_NW[n], scaled_NW[n], w_C, inverse_NW[n], size, P * size, A_NW[n], B_NW[n], K_NW[n])


@always_inlined
def _input_gradient(gradient, difference, c, A, B, K):
    return multiply_add(difference, load(B, c), multiply_add(gradient, load(A, c), load(K, c)))


@inlined
def _apply_gradient(x_ND, dy_ND, n, C, mean, a, b, rectified, A, B, K, border, dx_NHWC):
    """dx = dy · A + (x - mean) · B + K in row n; see `channel_normalisation._apply` for the order."""
    _, bordered_H, bordered_W, _ = dx_NHWC.shape
    H, W = bordered_H - 2 * border[0], bordered_W - 2 * border[1]
    for i in range(H):
        k = (n * H + i) * W * C
        to = ((n * bordered_H + i + border[0]) * bordered_W + border[1]) * C
        if rectified:
            for j in range(0, W * C, C):
                for part in range(0, C, LANES):
                    c = first_channel(part, C)
                    difference = subtract(load(x_ND, k + j + c), load(mean, c))
                    gradient = _masked(dy_ND, k + j + c, difference, load(a, c), load(b, c), True)
                    store(dx_NHWC, to + j + c, _input_gradient(gradient, difference, c, A, B, K))
        else:
            for j in range(0, W * C, C):
                for part in range(0, C, LANES):
                    c = first_channel(part, C)
                    difference = subtract(load(x_ND, k + j + c), load(mean, c))
                    store(dx_NHWC, to + j + c, _input_gradient(load(dy_ND, k + j + c), difference, c, A, B, K))


@kernel(
    "void(float32[:,::1], float32[:,::1], int64[::1], float32[::1], float32[::1], int64, boolean, float32[:,::1],"
    f" float32[:,::1], {_THREE}, {OUTPUT})"
)
def normalise_backward_input(
    x_ND, dy_ND, numbers_N, w_C, b_C, rows, rectified, mean_SW, inverse_SW, A_SW, B_SW, K_SW, border, dx_NHWC
):
    """dx = dy · A + (x - mean) · B + K, with the coefficients of a row's set.

    The parameters are those of `add_gradient_sums` and `normalise`; `dx_NHWC` is overwritten but for its border.
    """
    C, W = w_C.size, mean_SW.shape[1]
    a, b = np.zeros(W, np.float32), np.zeros(W, np.float32)
    b[:C] = b_C
    for n in range(x_ND.shape[0]):
        s = numbers_N[n] // rows
        for c in range(C):
            a[c] = w_C[c] * inverse_SW[s, c]
        _apply_gradient(x_ND, dy_ND, n, C, mean_SW[s], a, b, rectified, A_SW[s], B_SW[s], K_SW[s], border, dx_NHWC)


@kernel(
    "void(int64, int64, int64, float32[:,::1], float32[:,::1], float32[:,::1], float32[:,::1], int64, int64, int64)"
)
def write_parameter_gradients(N, rows, tile, inverse_SW, plain_SW, scaled_SW, slots_TK, C, w_start, b_start):
    """Write the gradients of w and b to each tile's slot, from `add_gradient_sums`; a tile has one set or several."""
    for t in range(slots_TK.shape[0]):
        for c in range(C):
            slots_TK[t, w_start + c] = 0
            slots_TK[t, b_start + c] = 0
        for first in range(t * tile, min(N, (t + 1) * tile), rows):
            s = first // rows
            for c in range(C):
                slots_TK[t, w_start + c] += scaled_SW[s, c] * inverse_SW[s, c]
                slots_TK[t, b_start + c] += plain_SW[s, c]


@kernel("void(float32[:,::1], float32[:,::1], int64, int64, int64, float32[:,::1], int64, int64)")
def write_statistics(mean_SW, squares_SW, N, tile, P, slots_TK, mean_start, variance_start):
    """Write each tile's means and unbiased variances to its slot: the running statistics average them.

    Source: PyTorch's BatchNorm2d, which normalises by the biased variance, and averages the unbiased one.
    """
    C = variance_start - mean_start  # means, then variances
    for t in range(slots_TK.shape[0]):
        count = (min(N, (t + 1) * tile) - t * tile) * P
        for c in range(C):
            slots_TK[t, mean_start + c] = mean_SW[t, c]
            slots_TK[t, variance_start + c] = squares_SW[t, c] / np.float32(count - 1)
