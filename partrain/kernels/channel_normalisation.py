"""Batch and group normalisation for float32, channels last, in explicit vectors, with a ReLU behind it.

A *set* is what shares its statistics: the rows (examples) of a tile in batch normalisation, one row in group
normalisation. A row has P places with C channels each. All passes go through the places in chunks, whose numbers stay
in the first-level cache while they are read again. A vector holds neighbouring channels, so each number of a sum over
places is a chain of its own: sums do not depend on LANES. A chunk has four chains, for every fourth place.

    forward     y = (x - mean) · a + b                 a = w / sqrt(variance + eps)
    backward    dx = dy · A + (x - mean) · B + K       A, B, K: see `_gradient_coefficients`

The variance comes from differences to the mean of a chunk; chunks are combined exactly as in Chan, Golub, LeVeque,
"Algorithms for computing the sample variance", 1983, section 2. The ReLU's mask is computed from x once more, which
takes less time than reading y.

Arrays of channels are padded to whole vectors. Where these are wider than the channels that are left, the other lanes
hold numbers of the next place: images are followed by LANES numbers that a vector may read, and write.

Sources: Ioffe, Szegedy, arXiv 1502.03167, section 3; Wu, He, arXiv 1803.08494, section 3.1.

Shapes: N rows, S sets of them, T tiles; C channels, W padded channels; P places; D numbers of a row; K numbers of a
slot.
"""

from __future__ import annotations

import numpy as np

from partrain.kernels.compiler.flags import always_inlined, inlined, kernel
from partrain.kernels.simd.blocks import rectify
from partrain.kernels.simd.vectors import (
    LANES,
    add,
    broadcast,
    element,
    less_equal,
    load,
    multiply,
    multiply_add,
    select,
    store,
    store_number,
    subtract,
)

# Places of a chunk: 16 KiB with 64 channels.
CHUNK = 64


def padded(num_channels: int) -> int:
    """Return the width of arrays of channels."""
    return -(-num_channels // LANES) * LANES


@always_inlined
def _deviation(x, k, mean, squares):
    difference = subtract(load(x, k), mean)
    return multiply_add(difference, difference, squares)


@inlined
def add_moments(x, start, count, C, num_before, mean, squares):
    """Add the places of a chunk to the mean and the sum of squared deviations of `num_before` places."""
    inverse = broadcast(np.float32(1) / np.float32(count))
    whole = count - count % 4
    total = num_before + count
    share = broadcast(np.float32(count / total))
    weight = broadcast(np.float32(num_before * (count / total)))
    for c in range(0, C, LANES):
        zero = broadcast(np.float32(0))
        s0, s1, s2, s3 = zero, zero, zero, zero
        k = start + c
        for _ in range(0, whole, 4):
            s0, s1 = add(s0, load(x, k)), add(s1, load(x, k + C))
            s2, s3 = add(s2, load(x, k + 2 * C)), add(s3, load(x, k + 3 * C))
            k += 4 * C
        for _ in range(whole, count):
            s0 = add(s0, load(x, k))
            k += C
        of_chunk = multiply(add(add(s0, s1), add(s2, s3)), inverse)
        s0, s1, s2, s3 = zero, zero, zero, zero
        k = start + c
        for _ in range(0, whole, 4):
            s0, s1 = _deviation(x, k, of_chunk, s0), _deviation(x, k + C, of_chunk, s1)
            s2, s3 = _deviation(x, k + 2 * C, of_chunk, s2), _deviation(x, k + 3 * C, of_chunk, s3)
            k += 4 * C
        for _ in range(whole, count):
            s0 = _deviation(x, k, of_chunk, s0)
            k += C
        deviations = add(add(s0, s1), add(s2, s3))
        if num_before == 0:
            store(mean, c, of_chunk)
            store(squares, c, deviations)
        else:
            delta = subtract(of_chunk, load(mean, c))
            store(mean, c, multiply_add(delta, share, load(mean, c)))
            deviations = add(load(squares, c), deviations)
            store(squares, c, multiply_add(multiply(delta, delta), weight, deviations))


@inlined
def _moments(x_ND, first, last, C, mean, squares):
    """Write mean and sum of squared deviations of each channel of the rows `first` … `last`-1."""
    D = x_ND.shape[1]
    P = D // C
    num_before = 0
    for n in range(first, last):
        for p in range(0, P, CHUNK):
            count = min(CHUNK, P - p)
            add_moments(x_ND, n * D + p * C, count, C, num_before, mean, squares)
            num_before += count


@inlined
def _share_moments(mean, squares, C, G, P):
    """Replace the moments of each channel by those of its group, of C/G channels with P places each."""
    size = C // G
    for g in range(0, C, size):
        total = 0.0
        for c in range(g, g + size):
            total += np.float64(mean[c])
        of_group = total / size
        total = 0.0
        for c in range(g, g + size):
            difference = np.float64(mean[c]) - of_group
            total += np.float64(squares[c]) + P * difference * difference
        for c in range(g, g + size):
            mean[c] = np.float32(of_group)
            squares[c] = np.float32(total)


@inlined
def _apply(x_ND, first, last, C, mean, a, b, rectified, y_ND):
    """y = (x - mean) · a + b in the rows `first` … `last`-1; if `rectified`, max(y, 0) of it."""
    D = x_ND.shape[1]
    for start in range(first * D, last * D, CHUNK * C):
        end = min(start + CHUNK * C, last * D)
        for part in range(0, C, LANES):
            c = max(0, min(part, C - LANES))
            mean_c, a_c, b_c = load(mean, c), load(a, c), load(b, c)
            if rectified:
                for k in range(start + c, end, C):
                    store(y_ND, k, rectify(multiply_add(subtract(load(x_ND, k), mean_c), a_c, b_c)))
            else:
                for k in range(start + c, end, C):
                    store(y_ND, k, multiply_add(subtract(load(x_ND, k), mean_c), a_c, b_c))


@kernel(
    "void(float32[:,::1], float32[::1], float32[::1], float32[::1], int64, int64, boolean, float32[:,::1],"
    " float32[:,::1], float32[:,::1], float32[:,::1])"
)
def normalise_forward(x_ND, w_C, b_C, eps_1, G, rows, rectified, mean_SW, squares_SW, inverse_SW, y_ND):
    """Normalise sets of `rows` rows by their own statistics, then scale and shift each channel.

    Parameters
    ----------
    x_ND : read.
    w_C, b_C : factor and summand of each channel; read.
    eps_1 : added to the variance.
    G : number of groups of channels that share their statistics; 0: each channel has its own.
    rows : rows of a set; the last one may have fewer.
    rectified : whether to take max(y, 0).
    mean_SW, squares_SW, inverse_SW : mean, sum of squared deviations, 1 / sqrt(variance + eps); overwritten.
    y_ND : overwritten.
    """
    N, D = x_ND.shape
    C, W = w_C.size, mean_SW.shape[1]
    P = D // C
    a, b = np.zeros(W, np.float32), np.zeros(W, np.float32)
    b[:C] = b_C
    for s in range((N + rows - 1) // rows):
        first, last = s * rows, min(N, (s + 1) * rows)
        mean, squares, inverse = mean_SW[s], squares_SW[s], inverse_SW[s]
        _moments(x_ND, first, last, C, mean, squares)
        count = (last - first) * P
        if G > 0:
            _share_moments(mean, squares, C, G, P)
            count = P * (C // G)
        for c in range(C):
            inverse[c] = np.float32(1 / np.sqrt(np.float64(squares[c]) / count + np.float64(eps_1[0])))
            a[c] = w_C[c] * inverse[c]
        _apply(x_ND, first, last, C, mean, a, b, rectified, y_ND)


@kernel(
    "void(float32[:,::1], float32[::1], float32[::1], float32[::1], float32[::1], float32[::1], boolean,"
    " float32[:,::1])"
)
def normalise_by_averages(x_ND, w_C, b_C, eps_1, mean_C, variance_C, rectified, y_ND):
    """Normalise by given statistics, as batch normalisation does in an evaluation; see `normalise_forward`."""
    C = w_C.size
    W = (C + LANES - 1) // LANES * LANES
    mean, a, b = np.zeros(W, np.float32), np.zeros(W, np.float32), np.zeros(W, np.float32)
    for c in range(C):
        mean[c], b[c] = mean_C[c], b_C[c]
        a[c] = w_C[c] * np.float32(1 / np.sqrt(np.float64(variance_C[c]) + np.float64(eps_1[0])))
    _apply(x_ND, 0, x_ND.shape[0], C, mean, a, b, rectified, y_ND)


@always_inlined
def _masked(dy, k, difference, a, b, rectified):
    """Return the gradient at the normalised number: that at the ReLU's output, if it is above 0."""
    gradient = load(dy, k)
    if rectified:
        zero = broadcast(np.float32(0))
        gradient = select(less_equal(multiply_add(difference, a, b), zero), zero, gradient)
    return gradient


@inlined
def _add_gradient_sums(x, dy, start, count, C, mean, a, b, rectified, plain, scaled):
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


@inlined
def _apply_gradient(x_ND, dy_ND, first, last, C, mean, a, b, rectified, A, B, K, dx_ND):
    """dx = dy · A + (x - mean) · B + K in the rows `first` … `last`-1."""
    D = x_ND.shape[1]
    for start in range(first * D, last * D, CHUNK * C):
        end = min(start + CHUNK * C, last * D)
        for part in range(0, C, LANES):
            c = max(0, min(part, C - LANES))
            mean_c, a_c, b_c = load(mean, c), load(a, c), load(b, c)
            A_c, B_c, K_c = load(A, c), load(B, c), load(K, c)
            if rectified:
                for k in range(start + c, end, C):
                    difference = subtract(load(x_ND, k), mean_c)
                    gradient = multiply_add(_masked(dy_ND, k, difference, a_c, b_c, True), A_c, K_c)
                    store(dx_ND, k, multiply_add(difference, B_c, gradient))
            else:
                for k in range(start + c, end, C):
                    difference = subtract(load(x_ND, k), mean_c)
                    store(dx_ND, k, multiply_add(difference, B_c, multiply_add(load(dy_ND, k), A_c, K_c)))


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
        for c in range(g, g + size):
            factor = np.float64(inverse[c])
            A[c] = w[c] * inverse[c]
            B[c] = np.float32(-(factor * factor * factor) * (of_product / count))
            K[c] = np.float32(-factor * (of_dz / count))


@kernel(
    "void(float32[:,::1], float32[:,::1], float32[::1], float32[::1], int64, int64, boolean, float32[:,::1],"
    " float32[:,::1], int64, float32[:,::1], int64, int64, float32[:,::1])"
)
def normalise_backward(
    x_ND, dy_ND, w_C, b_C, G, rows, rectified, mean_SW, inverse_SW, tile, slots_TK, w_start, b_start, dx_ND
):
    """Compute the gradients of w and b in each tile's slot, and that at the input unless `dx_ND` has no rows.

    Parameters
    ----------
    x_ND, w_C, b_C, G, rows, rectified, mean_SW, inverse_SW : as `normalise_forward` was given, and has written.
    dy_ND : gradient at the output; read.
    tile : rows of a tile, one set or several.
    slots_TK : the columns from `w_start` and from `b_start` on are overwritten.
    dx_ND : overwritten.
    """
    N, D = x_ND.shape
    C, W = w_C.size, mean_SW.shape[1]
    P = D // C
    a, b, A, B, K = (np.zeros(W, np.float32), np.zeros(W, np.float32), np.zeros(W, np.float32),
                     np.zeros(W, np.float32), np.zeros(W, np.float32))  # fmt: skip
    plain, scaled = np.zeros(W, np.float32), np.zeros(W, np.float32)
    b[:C] = b_C
    for t in range(slots_TK.shape[0]):
        for c in range(C):
            slots_TK[t, w_start + c] = 0
            slots_TK[t, b_start + c] = 0
        for first in range(t * tile, min(N, (t + 1) * tile), rows):
            last = min(first + rows, min(N, (t + 1) * tile))
            mean, inverse = mean_SW[first // rows], inverse_SW[first // rows]
            for c in range(C):
                a[c] = w_C[c] * inverse[c]
            plain[:] = 0
            scaled[:] = 0
            for n in range(first, last):
                for p in range(0, P, CHUNK):
                    _add_gradient_sums(x_ND, dy_ND, n * D + p * C, min(CHUNK, P - p), C, mean, a, b, rectified,
                                       plain, scaled)  # fmt: skip
            for c in range(C):
                slots_TK[t, w_start + c] += scaled[c] * inverse[c]
                slots_TK[t, b_start + c] += plain[c]
            if dx_ND.shape[0] > 0:
                size = C // G if G > 0 else 1
                count = P * size if G > 0 else P * (last - first)
                _gradient_coefficients(plain, scaled, w_C, inverse, size, count, A, B, K)
                _apply_gradient(x_ND, dy_ND, first, last, C, mean, a, b, rectified, A, B, K, dx_ND)


@kernel("void(float32[:,::1], float32[:,::1], int64, int64, int64, float32[:,::1], int64, int64)")
def write_statistics(mean_SW, squares_SW, N, tile, P, slots_TK, mean_start, variance_start):
    """Write each tile's means and unbiased variances to its slot: the running statistics average them.

    Source: PyTorch's BatchNorm2d, which normalises by the biased variance, and averages the unbiased one.
    """
    C = variance_start - mean_start
    for t in range(slots_TK.shape[0]):
        count = (min(N, (t + 1) * tile) - t * tile) * P
        for c in range(C):
            store_number(slots_TK, t * slots_TK.shape[1] + mean_start + c, element(mean_SW, t * mean_SW.shape[1] + c))
            slots_TK[t, variance_start + c] = squares_SW[t, c] / np.float32(count - 1)
