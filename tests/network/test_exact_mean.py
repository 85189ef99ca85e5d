from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from partrain.network.exact_mean import exact_mean


def test_sum_is_rounded_once_in_any_order():
    values = np.random.default_rng(0).lognormal(sigma=20, size=1001)
    mean = exact_mean(values)
    assert mean == float(sum(map(Fraction, values.tolist()))) / len(values)
    assert exact_mean(values[::-1]) == mean


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], math.nan), ([1, math.nan], math.nan), ([1, math.inf], math.inf), ([1e308] * 2, math.inf)],
)
def test_what_is_not_finite_is_seen(values, expected):
    np.testing.assert_equal(exact_mean(np.array(values, np.float64)), expected)
