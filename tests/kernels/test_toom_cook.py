from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from partrain.kernels.toom_cook import filter_transform, input_transform, output_transform


def product(matrix, vector):
    return [sum((a * b for a, b in zip(row, vector, strict=True)), Fraction(0)) for row in matrix]


@pytest.mark.parametrize(("n", "r"), [(n, r) for n in (6, 8) for r in range(1, n)])
def test_transforms_compute_neighbouring_outputs_without_any_error_in_rational_numbers(n, r):
    m = n + 1 - r
    rng = np.random.default_rng(r)
    d, g = ([Fraction(int(a), int(b)) for a, b in rng.integers(1, 99, (size, 2))] for size in (n, r))
    factors = zip(product(filter_transform(m, r), g), product(input_transform(n), d), strict=True)
    y = product(output_transform(m, r), [a * b for a, b in factors])
    assert y == [sum(d[i + j] * g[j] for j in range(r)) for i in range(m)]


@pytest.mark.parametrize(("m", "r"), [(4, 3), (4, 5)])
def test_coefficients_of_inputs_and_outputs_are_exact_in_float32(m, r):
    for matrix in (input_transform(m + r - 1), output_transform(m, r)):
        for row in matrix:
            assert all(Fraction(float(np.float32(float(c)))) == c for c in row)
