"""Batch and group normalisation for float32, channels last, in explicit vectors, with a ReLU behind it.

A *set* is what shares its statistics: the rows (examples) of a tile in batch normalisation, one row in group
normalisation. A row has P places with C channels each. The kernels that go through rows may be called for a few of them
at a time (network.stages.call_order); then one that needs all rows of a set finishes what they have added up.

All passes go through the places in chunks, whose numbers stay in the first-level cache while they are read again. A
vector holds neighbouring channels, so each number of a sum over places is a chain of its own: sums do not depend on
LANES. A chunk has four chains, for every fourth place.

    y = (x - mean) · a + b,   a = w / sqrt(variance + eps)

The variance comes from differences to the mean of a chunk; chunks are combined exactly as in Chan, Golub, LeVeque,
"Algorithms for computing the sample variance", 1983, section 2. `normalisation_gradients` has the backward pass.

Arrays of channels are padded to whole vectors. Where these are wider than the channels that are left, the other lanes
hold numbers of the next place: images are followed by LANES numbers that a vector may read, and write.

Sources: Ioffe, Szegedy, arXiv 1502.03167, section 3; Wu, He, arXiv 1803.08494, section 3.1.

Shapes: N rows, S sets of them, T tiles; C channels, W padded channels; P places; H, W rows and columns of an image,
which has one place where the input is a vector; D numbers of a row; K numbers of a slot.
"""

from __future__ import annotations

import numpy as np

from partrain.kernels.compiler.flags import always_inlined, inlined, kernel

from .simd.blocks import rectify
from .simd.vectors import (
    LANES,
    add,
    broadcast,
    load,
    multiply,
    multiply_add,
    store,
    subtract,
)

# Places of a chunk: 16 KiB with 64 channels.
CHUNK = 64
# The types of a border and of images that have it.
OUTPUT = "UniTuple(int64, 2), float32[:,:,:,::1]"


def padded(num_channels: int) -> int:
    """Return the width of arrays of channels."""
    return -(-num_channels // LANES) * LANES


@always_inlined
def _deviation(x, k, mean, squares):
    difference = subtract(load(x, k), mean)
    return multiply_add(difference, difference, squares)


@inlined
def add_moments_of_chunk(x, start, count, C, num_before, mean, squares):
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


@kernel("void(float32[:,::1], int64[::1], int64, int64, float32[:,::1], float32[:,::1])")
def add_moments(x_ND, numbers_N, C, rows, mean_SW, squares_SW):
    """Write mean and sum of squared deviations of each channel; those of a set are complete with its last row.

    Parameters
    ----------
    x_ND : rows, in their order; read.
    numbers_N : the number of each row: that of its set is `number // rows`. Read.
    C : channels.
    rows : rows of a set; the last one may have fewer.
    mean_SW, squares_SW : the sums over the rows of a set that came before are read, and overwritten.
    """
    N, D = x_ND.shape
    P = D // C
    for k in range(N):
        s, before = divmod(numbers_N[k], rows)
        num_before = before * P
        for p in range(0, P, CHUNK):
            count = min(CHUNK, P - p)
            add_moments_of_chunk(x_ND, k * D + p * C, count, C, num_before, mean_SW[s], squares_SW[s])
            num_before += count


@inlined
def _inverse_deviation(squares, count, eps_1):
    return np.float32(1 / np.sqrt(np.float64(squares) / count + np.float64(eps_1[0])))


@inlined
def _share_moments(mean, squares, C, G, P, eps_1, inverse):
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
        inverse_of_group = _inverse_deviation(np.float32(total), P * size, eps_1)
        for c in range(g, g + size):
            mean[c], squares[c], inverse[c] = np.float32(of_group), np.float32(total), inverse_of_group


@always_inlined
def first_channel(part, C):
    """Return the first channel of the vector of `part` … `part`+LANES-1; the last one may overlap the one before."""
    return max(0, min(part, C - LANES))


@always_inlined
def _normalised(x, place, c, mean, a, b):
    return multiply_add(subtract(load(x, place + c), load(mean, c)), load(a, c), load(b, c))


@inlined
def _apply(x_ND, n, C, mean, a, b, rectified, border, y_NHWC):
    """y = (x - mean) · a + b in row n; if `rectified`, max(y, 0) of it.

    Numbers are read in the order in which they are in memory, or another cache, which feeds this loop: there,
    reading the coefficients again costs nothing.
    """
    _, bordered_H, bordered_W, _ = y_NHWC.shape
    H, W = bordered_H - 2 * border[0], bordered_W - 2 * border[1]
    for i in range(H):
        k = (n * H + i) * W * C
        to = ((n * bordered_H + i + border[0]) * bordered_W + border[1]) * C
        if rectified:
            for j in range(0, W * C, C):
                for part in range(0, C, LANES):
                    c = first_channel(part, C)
                    store(y_NHWC, to + j + c, rectify(_normalised(x_ND, k + j, c, mean, a, b)))
        else:
            for j in range(0, W * C, C):
                for part in range(0, C, LANES):
                    c = first_channel(part, C)
                    store(y_NHWC, to + j + c, _normalised(x_ND, k + j, c, mean, a, b))


@kernel("void(int64, int64, int64, int64, float32[::1], float32[:,::1], float32[:,::1])")
def finish_batch_moments(N, rows, P, C, eps_1, squares_SW, inverse_SW):
    """Write  1 / sqrt(variance + eps)  of each channel, for the sets of `rows` of N rows."""
    for s in range((N + rows - 1) // rows):
        count = (min(N, (s + 1) * rows) - s * rows) * P
        for c in range(C):
            inverse_SW[s, c] = _inverse_deviation(squares_SW[s, c], count, eps_1)


@kernel("void(int64, int64, int64, float32[::1], float32[:,::1], float32[:,::1], float32[:,::1])")
def finish_group_moments(P, C, G, eps_1, mean_NW, squares_NW, inverse_NW):
    """Replace the moments of each channel by those of its group, of G; write  1 / sqrt(variance + eps)."""
    for n in range(mean_NW.shape[0]):
        _share_moments(mean_NW[n], squares_NW[n], C, G, P, eps_1, inverse_NW[n])


@kernel(
    "void(float32[:,::1], int64[::1], float32[::1], float32[::1], int64, boolean, float32[:,::1], float32[:,::1],"
    f" {OUTPUT})"
)
def normalise(x_ND, numbers_N, w_C, b_C, rows, rectified, mean_SW, inverse_SW, border, y_NHWC):
    """Normalise rows, then scale and shift each channel.

    Parameters
    ----------
    x_ND, numbers_N, rows : as for `add_moments`; read.
    w_C, b_C : factor and summand of each channel; read.
    rectified : whether to take max(y, 0).
    mean_SW, inverse_SW : mean, and 1 / sqrt(variance + eps); read.
    border, y_NHWC : overwritten but for the border. A border needs LANES channels, or more.
    """
    C, W = w_C.size, mean_SW.shape[1]
    a, b = np.zeros(W, np.float32), np.zeros(W, np.float32)
    b[:C] = b_C
    for n in range(x_ND.shape[0]):
        s = numbers_N[n] // rows
        for c in range(C):
            a[c] = w_C[c] * inverse_SW[s, c]
        _apply(x_ND, n, C, mean_SW[s], a, b, rectified, border, y_NHWC)


@kernel(
    f"void(float32[:,::1], float32[::1], float32[::1], float32[::1], float32[::1], float32[::1], boolean, {OUTPUT})"
)
def normalise_by_averages(x_ND, w_C, b_C, eps_1, mean_C, variance_C, rectified, border, y_NHWC):
    """Normalise by given statistics, as batch normalisation does in an evaluation; see `normalise`."""
    C = w_C.size
    W = (C + LANES - 1) // LANES * LANES
    mean, a, b = np.zeros(W, np.float32), np.zeros(W, np.float32), np.zeros(W, np.float32)
    for c in range(C):
        mean[c], b[c] = mean_C[c], b_C[c]
        a[c] = w_C[c] * np.float32(1 / np.sqrt(np.float64(variance_C[c]) + np.float64(eps_1[0])))
    for n in range(x_ND.shape[0]):
        _apply(x_ND, n, C, mean, a, b, rectified, border, y_NHWC)
