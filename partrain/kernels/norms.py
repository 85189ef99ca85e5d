"""Squared norms of the gradients of single examples, in float64.

A dense layer's gradient is the outer product of its factors, so its norm needs no matrix:

    |d·aᵀ|² + |d|² = |d|² · (|a|² + 1)        a: the inputs, d: the deltas; the second term is the bias'

Source: Goodfellow, "Efficient per-example gradient computations", arXiv 1510.01799.

Shapes: N examples; K numbers of a slot; D, E a dense layer's inputs, outputs; L layers.
"""

from __future__ import annotations

import numpy as np

from partrain.kernels.compiler.flags import inlined, kernel


# fast_math reorders the sums, in the same way in every process, so that they use vectors: five times as fast.
@kernel("void({float}[:,::1], int64, int64, float64[:,::1], int64)", fast_math=True)
def slot_squared_norms(slots_NK, first, last, norms_NL, layer):
    """norms[n, layer] = sum of slots[n,k]² over k from first to last-1."""
    for n in range(slots_NK.shape[0]):
        total = 0.0
        for k in range(first, last):
            total += np.float64(slots_NK[n, k]) * np.float64(slots_NK[n, k])
        norms_NL[n, layer] = total


@inlined
def _squared_norm(rows, n):
    total = 0.0
    for k in range(rows.shape[1]):
        total += np.float64(rows[n, k]) * np.float64(rows[n, k])
    return total


@kernel("void({float}[:,::1], {float}[:,::1], float64[:,::1], int64)", fast_math=True)
def factor_squared_norms(inputs_ND, deltas_NE, norms_NL, layer):
    """norms[n, layer] = |deltas[n]|² · (|inputs[n]|² + 1)."""
    for n in range(inputs_ND.shape[0]):
        norms_NL[n, layer] = _squared_norm(deltas_NE, n) * (_squared_norm(inputs_ND, n) + 1.0)
