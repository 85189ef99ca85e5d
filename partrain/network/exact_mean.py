"""The mean of losses and norms, with the same bits in every version of NumPy, whose sums have an order of their own."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def exact_mean(values: NDArray[np.float64]) -> float:
    """Return the mean of an array of numbers, whose sum is rounded once; NaN if there are none.

    Parameters
    ----------
    values : float64, (n,); read. A sum that overflows is infinite.
    """
    if not len(values):
        return math.nan
    try:
        return math.fsum(values.tolist()) / len(values)
    except OverflowError:
        return math.inf
