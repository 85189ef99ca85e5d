"""Dropout: draws factors of 0 or 1/(1-rate) for each example, and multiplies activations by them.

Shapes: N examples; D numbers of an example, those of an image in the order (channels, rows, columns).
"""

from __future__ import annotations

import numpy as np

from partrain.kernels.compiler.flags import kernel
from partrain.kernels.philox import draw_words


@kernel("void(uint64, int64[::1], float64, {float}[:,::1])")
def draw_factors(key, examples_N, rate, factors_ND):
    """Draw the factors of N examples: 0 where the example's word d is below rate · 2**32, else 1 / (1 - rate).

    So the expectation of a product is the activation itself, and evaluation needs no scaling. Word d is number d % B of
    row d // B of `draw_words`, for the B = ceil(D/4) blocks of an example.

    Parameters
    ----------
    key : the key of the random numbers; depends on seed, epoch and layer.
    examples_N : indices of the examples in the training set; read.
    rate : 0 or more, below 1.
    factors_ND : overwritten.

    Source: Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 2014, section
    4, and section 10 for scaling in training.
    """
    D = factors_ND.shape[1]
    words_4B = np.empty((4, (D + 3) // 4), np.uint32)
    words = words_4B.reshape(-1)
    threshold = np.uint32(rate * 4294967296.0)
    zero, scale = factors_ND.dtype.type(0), factors_ND.dtype.type(1 / (1 - rate))
    for n in range(examples_N.size):
        draw_words(key, examples_N[n], words_4B)
        for d in range(D):
            factors_ND[n, d] = zero if words[d] < threshold else scale


@kernel("void({float}[:,::1], int64, int64, {float}[:,::1])")
def scale_by_factors(factors_ND, place_step, channel_step, x_ND):
    """Multiply N rows by their factors, in place. The product of 0 and NaN is NaN, so NaN is not hidden.

    The number of position p (of P) and channel c is at p·place_step + c·channel_step of its row of `x_ND`, and its
    factor at c·P + p of its row of `factors_ND`. One of the steps is 1: rows have channels last, or the
    order of the factors.
    """
    N, D = factors_ND.shape
    if place_step == 1:
        for n in range(N):
            for d in range(D):
                x_ND[n, d] *= factors_ND[n, d]
    else:
        C, P = place_step, D // place_step
        for n in range(N):
            for p in range(P):
                for c in range(C):
                    x_ND[n, p * place_step + c * channel_step] *= factors_ND[n, c * P + p]
