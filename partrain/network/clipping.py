"""Norms of the gradients of single examples, and the factors that clip them.

Clipping scales each example's gradient, over all layers, to at most a given norm before the gradients are summed. This
limits the influence of an example, and of a wrong label, on the parameters.

Source: Abadi et al., "Deep learning with differential privacy", arXiv 1607.00133, algorithm 1.

Shapes: N examples; L layers with parameters.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def gradient_norms(squared_norms_NL: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the norm of each example's gradient over all layers (N,); the layers are added in their order."""
    total_N = squared_norms_NL[:, 0].copy()
    for k in range(1, squared_norms_NL.shape[1]):
        total_N += squared_norms_NL[:, k]
    return np.sqrt(total_N)


def clipping_scales(norms_N: NDArray[np.float64], clip: float, dtype: str) -> NDArray[Any]:
    """Return min(1, clip / norm) of each example, (N,) in `dtype`: exactly 1 for norms up to `clip`.

    If a norm is not finite, its factor is 0 or NaN. The gradient is then not finite either, which is found before the
    parameters are updated.
    """
    scales_N = np.ones(len(norms_N), dtype)
    above = ~(norms_N <= clip)
    scales_N[above] = clip / norms_N[above]
    return scales_N
