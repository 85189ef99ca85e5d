"""Probabilities of the classes from a network's logits, in float64.

Shapes: N examples; E classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.kernels.elementary import exp


def softmax(logits_NE: NDArray[Any]) -> NDArray[np.float64]:
    """Return the probability of each class: exp(z[e] - max z) / sum over e of exp(z[e] - max z).

    Subtracting the maximum does not change the result; it keeps exp from overflowing. Logits that are not finite give
    NaN. The sum is taken in the order of the classes, as in `kernels.loops.softmax_cross_entropy`.
    """
    with np.errstate(invalid="ignore"):
        powers_NE = exp(logits_NE.astype(np.float64) - logits_NE.max(axis=1, keepdims=True))
    probabilities_NE: NDArray[np.float64] = powers_NE / np.add.accumulate(powers_NE, axis=1)[:, -1:]
    return probabilities_NE
