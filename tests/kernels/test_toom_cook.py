from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from partrain.kernels.toom_cook import (
    POINTS_OF_3X3,
    POINTS_OF_5,
    POINTS_OF_5X5,
    filter_transform,
    input_transform,
    output_transform,
)

POINTS = (POINTS_OF_3X3, POINTS_OF_5, POINTS_OF_5X5)


def product(matrix, vector):
    return [sum((a * b for a, b in zip(row, vector, strict=True)), Fraction(0)) for row in matrix]


@pytest.mark.parametrize(("points", "r"), [(points, r) for points in POINTS for r in range(1, len(points) + 1)])
def test_transforms_compute_neighbouring_outputs_without_any_error_in_rational_numbers(points, r):
    n = len(points) + 1
    m = n + 1 - r
    rng = np.random.default_rng(r)
    d, g = ([Fraction(int(a), int(b)) for a, b in rng.integers(1, 99, (size, 2))] for size in (n, r))
    factors = zip(product(filter_transform(points, r), g), product(input_transform(points), d), strict=True)
    y = product(output_transform(points, m), [a * b for a, b in factors])
    assert y == [sum(d[i + j] * g[j] for j in range(r)) for i in range(m)]


@pytest.mark.parametrize("points", POINTS)
def test_coefficients_of_inputs_and_outputs_are_exact_in_float32(points):
    for matrix in (input_transform(points), output_transform(points, 4)):
        for row in matrix:
            assert all(Fraction(float(np.float32(float(c)))) == c for c in row)
