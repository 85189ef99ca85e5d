"""Squared norms of the gradients of single examples, in float64.

A dense layer's gradient is the outer product of its factors, so its norm needs no matrix:

    |d·aᵀ|² + |d|² = |d|² · (|a|² + 1)        a: the inputs, d: the deltas; the second term is the bias'

Source: Goodfellow, "Efficient per-example gradient computations", arXiv 1510.01799.

Shapes: N examples; K numbers of a slot; D, E a dense layer's inputs, outputs; L layers.
"""

from __future__ import annotations

import numpy as np

from partrain.kernels.compiler.flags import inlined, kernel

# Partial sums, each of every PARTS-th square. LLVM computes several at once: this changes the order of no sum.
PARTS = 64


@inlined
def _sum_of_squares(numbers, parts):
    """Return the sum of the squares of a vector. Overwrites `parts` (PARTS,)."""
    parts[:] = 0
    whole = numbers.size - numbers.size % PARTS
    for start in range(0, whole, PARTS):
        for k in range(PARTS):
            number = np.float64(numbers[start + k])
            parts[k] += number * number
    for k in range(numbers.size - whole):
        number = np.float64(numbers[whole + k])
        parts[k] += number * number
    width = PARTS
    while width > 1:  # halves are added to halves
        width //= 2
        for k in range(width):
            parts[k] += parts[width + k]
    return parts[0]


@kernel("void({float}[:,::1], int64, int64, float64[:,::1], int64)")
def slot_squared_norms(slots_NK, first, last, norms_NL, layer):
    """norms[n, layer] = sum of slots[n,k]² over k from first to last-1."""
    parts = np.empty(PARTS)
    for n in range(slots_NK.shape[0]):
        norms_NL[n, layer] = _sum_of_squares(slots_NK[n, first:last], parts)


@kernel("void({float}[:,::1], {float}[:,::1], float64[:,::1], int64)")
def factor_squared_norms(inputs_ND, deltas_NE, norms_NL, layer):
    """norms[n, layer] = |deltas[n]|² · (|inputs[n]|² + 1)."""
    parts = np.empty(PARTS)
    for n in range(inputs_ND.shape[0]):
        inputs = _sum_of_squares(inputs_ND[n], parts)
        norms_NL[n, layer] = _sum_of_squares(deltas_NE[n], parts) * (inputs + 1.0)
