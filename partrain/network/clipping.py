"""From the squared norms of single examples' gradients, by layer, to their norms, and to what clipping makes of them.

Clipping scales each example's whole gradient to at most a given norm before the sum: no single example, and no wrong
label, moves the parameters by more than that.

Source: Abadi et al., "Deep learning with differential privacy", arXiv 1607.00133, algorithm 1.

Shapes: N examples; L layers with parameters.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def gradient_norms(squared_norms_NL: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the norm of each example's whole gradient (N,); the layers are added in their order."""
    total_N = squared_norms_NL[:, 0].copy()
    for k in range(1, squared_norms_NL.shape[1]):
        total_N += squared_norms_NL[:, k]
    return np.sqrt(total_N)


def clipping_scales(norms_N: NDArray[np.float64], clip: float, dtype: str) -> NDArray[Any]:
    """Return min(1, clip / norm) of each example, (N,) in `dtype`: exactly 1 up to the norm `clip`.

    A norm that is not finite gives 0 or NaN, and so a gradient that is not finite and is found by the reduction.
    """
    scales_N = np.ones(len(norms_N), dtype)
    above = ~(norms_N <= clip)
    scales_N[above] = clip / norms_N[above]
    return scales_N
