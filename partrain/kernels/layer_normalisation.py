"""Layer normalisation for float32, in explicit vectors: all numbers of an example share mean and variance.

The numbers of an example are taken as rows of LINE numbers, and a rest. The moments of the LINE columns are those of
channels in `channel_normalisation`; then they are combined, so no sum depends on LANES.

Source: Ba, Kiros, Hinton, arXiv 1607.06450, section 3.

Shapes: N examples; D numbers of an example; T tiles; K numbers of a slot; H·W places, C channels of an image.
"""

from __future__ import annotations

import numpy as np

from partrain.kernels.compiler.flags import inlined, kernel

from .channel_normalisation import CHUNK, add_moments_of_chunk
from .simd.transposition import transpose
from .simd.vectors import (
    LANES,
    add,
    broadcast,
    element,
    fused,
    load,
    multiply,
    multiply_add,
    store,
    store_number,
    subtract,
)

# The largest number of lanes.
LINE = 16


@inlined
def _example_moments(x_ND, n, columns, squares):
    """Return mean and sum of squared deviations of a row, in float64. Overwrites `columns` and `squares` (LINE,)."""
    D = x_ND.shape[1]
    lines = D // LINE
    num_before = 0
    for line in range(0, lines, CHUNK):
        count = min(CHUNK, lines - line)
        add_moments_of_chunk(x_ND, n * D + line * LINE, count, LINE, num_before, columns, squares)
        num_before += count
    total = 0.0
    if lines > 0:
        for k in range(LINE):
            total += np.float64(columns[k]) * lines
    for d in range(lines * LINE, D):
        total += np.float64(element(x_ND, n * D + d))
    mean = total / D
    total = 0.0
    if lines > 0:
        for k in range(LINE):
            difference = np.float64(columns[k]) - mean
            total += np.float64(squares[k]) + lines * difference * difference
    for d in range(lines * LINE, D):
        difference = np.float64(element(x_ND, n * D + d)) - mean
        total += difference * difference
    return mean, total


@kernel(
    "void(float32[:,::1], float32[::1], float32[::1], float32[::1], float32[:,::1], float32[:,::1], float32[:,::1])"
)
def layer_norm_forward(x_ND, w_D, b_D, eps_1, mean_N1, inverse_N1, y_ND):
    """y = (x - mean) · inverse · w + b, inverse = 1 / sqrt(variance + eps). Overwrites the last three."""
    N, D = x_ND.shape
    columns, squares = np.empty(LINE, np.float32), np.empty(LINE, np.float32)
    whole = D - D % LANES
    for n in range(N):
        mean_64, total = _example_moments(x_ND, n, columns, squares)
        mean, inverse = np.float32(mean_64), np.float32(1 / np.sqrt(total / D + np.float64(eps_1[0])))
        mean_N1[n, 0], inverse_N1[n, 0] = mean, inverse
        means, inverses = broadcast(mean), broadcast(inverse)
        for d in range(0, whole, LANES):
            z = multiply(subtract(load(x_ND, n * D + d), means), inverses)
            store(y_ND, n * D + d, multiply_add(z, load(w_D, d), load(b_D, d)))
        for d in range(whole, D):
            z_d = (element(x_ND, n * D + d) - mean) * inverse
            store_number(y_ND, n * D + d, fused(z_d, element(w_D, d), element(b_D, d)))


@inlined
def _add_products(x_ND, dy_ND, n, w_D, mean, plain, scaled):
    """Return the sums of  dy · w  and of  dy · w · (x - mean)  of a row, in float64. Overwrites the last two."""
    D = x_ND.shape[1]
    whole = D - D % LINE
    means = broadcast(mean)
    for part in range(0, LINE, LANES):
        sums, products = broadcast(np.float32(0)), broadcast(np.float32(0))
        for d in range(part, whole, LINE):
            dz = multiply(load(dy_ND, n * D + d), load(w_D, d))
            sums = add(sums, dz)
            products = multiply_add(dz, subtract(load(x_ND, n * D + d), means), products)
        store(plain, part, sums)
        store(scaled, part, products)
    of_dz, of_product = 0.0, 0.0
    for k in range(LINE):
        of_dz += np.float64(plain[k])
        of_product += np.float64(scaled[k])
    for d in range(whole, D):
        dz_d = np.float64(element(dy_ND, n * D + d)) * np.float64(element(w_D, d))
        of_dz += dz_d
        of_product += dz_d * (np.float64(element(x_ND, n * D + d)) - np.float64(mean))
    return of_dz, of_product


@inlined
def _add_weight_gradient(x_ND, dy_ND, n, mean, inverse, dw, db):
    """Add the gradients of w and b of a row."""
    D = x_ND.shape[1]
    whole = D - D % LANES
    means, inverses = broadcast(mean), broadcast(inverse)
    for d in range(0, whole, LANES):
        gradient = load(dy_ND, n * D + d)
        z = multiply(subtract(load(x_ND, n * D + d), means), inverses)
        store(dw, d, multiply_add(gradient, z, load(dw, d)))
        store(db, d, add(load(db, d), gradient))
    for d in range(whole, D):
        gradient_d = element(dy_ND, n * D + d)
        z_d = (element(x_ND, n * D + d) - mean) * inverse
        store_number(dw, d, fused(gradient_d, z_d, element(dw, d)))
        store_number(db, d, element(db, d) + gradient_d)


@inlined
def _write_input_gradient(x_ND, dy_ND, n, w_D, mean, A, B, K, dx_ND):
    """dx = dy · w · A + (x - mean) · B + K in a row."""
    D = x_ND.shape[1]
    whole = D - D % LANES
    means, factors, slopes, constants = broadcast(mean), broadcast(A), broadcast(B), broadcast(K)
    for d in range(0, whole, LANES):
        dz = multiply(load(dy_ND, n * D + d), load(w_D, d))
        difference = subtract(load(x_ND, n * D + d), means)
        store(dx_ND, n * D + d, multiply_add(difference, slopes, multiply_add(dz, factors, constants)))
    for d in range(whole, D):
        dz_d = element(dy_ND, n * D + d) * element(w_D, d)
        difference_d = element(x_ND, n * D + d) - mean
        store_number(dx_ND, n * D + d, fused(difference_d, B, fused(dz_d, A, K)))


@kernel(
    "void(float32[:,::1], float32[:,::1], float32[::1], float32[:,::1], float32[:,::1], int64, int64,"
    " float32[:,::1], int64, int64, float32[:,::1])"
)
def layer_norm_backward(x_ND, dy_ND, w_D, mean_N1, inverse_N1, C, tile, slots_TK, w_start, b_start, dx_ND):
    """Compute the gradients of w and b in each tile's slot, and that at the input unless `dx_ND` has no rows.

    The slots have the order (channels, places), all else that of x: (places, channels), with C channels.
    """
    D, N = w_D.size, x_ND.shape[0]
    dw, db = np.empty(D, np.float32), np.empty(D, np.float32)
    plain, scaled = np.empty(LINE, np.float32), np.empty(LINE, np.float32)
    K_slot = slots_TK.shape[1]
    for t in range(slots_TK.shape[0]):
        dw[:] = 0
        db[:] = 0
        for n in range(t * tile, min(N, (t + 1) * tile)):
            mean, inverse = mean_N1[n, 0], inverse_N1[n, 0]
            _add_weight_gradient(x_ND, dy_ND, n, mean, inverse, dw, db)
            if dx_ND.shape[0] > 0:
                of_dz, of_product = _add_products(x_ND, dy_ND, n, w_D, mean, plain, scaled)
                factor = np.float64(inverse)
                B = np.float32(-(factor * factor * factor) * (of_product / D))
                K = np.float32(-factor * (of_dz / D))
                _write_input_gradient(x_ND, dy_ND, n, w_D, mean, inverse, B, K, dx_ND)
        transpose(dw, 0, D // C, C, slots_TK, t * K_slot + w_start, D // C)
        transpose(db, 0, D // C, C, slots_TK, t * K_slot + b_start, D // C)
