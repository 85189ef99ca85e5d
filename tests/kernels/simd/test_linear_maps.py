from __future__ import annotations

from fractions import Fraction

import numpy as np

from partrain.kernels.compiler.flags import kernel
from partrain.kernels.compiler.loading import load
from partrain.kernels.simd.blocks import points_in_steps, store_block
from partrain.kernels.simd.linear_maps import linear_map
from partrain.kernels.simd.vectors import LANES

MATRICES = [
    [[Fraction(1), Fraction(2), Fraction(0), Fraction(-5, 4)]],
    # Two rows that differ in signs alone, and one that is all zeros but one.
    [[Fraction(3), Fraction(5, 8), Fraction(-7)], [Fraction(3), Fraction(-5, 8), Fraction(-7)], [0, 0, Fraction(-3)]],
    # Columns that differ in signs alone.
    [[Fraction(1), Fraction(1), Fraction(4)], [Fraction(3, 2), Fraction(-3, 2), Fraction(1)]],
    [[Fraction(c, 8) for c in row] for row in ((1, 2, 3, 4, 5), (8, -2, 7, 0, 1), (-1, -2, 3, -4, 5))],
]
_a, _b, _c, _d = (linear_map([tuple(map(Fraction, row)) for row in matrix]) for matrix in MATRICES)


@kernel("void(float32[::1], int64, float32[:,::1])")
def _map_all(x, step, y):
    store_block(_a(x, 1, step), points_in_steps(y, 0, LANES, 1), 0)
    store_block(_b(x, 1, step), points_in_steps(y, 8 * LANES, LANES, 3), 0)
    store_block(_c(x, 1, step), points_in_steps(y, 16 * LANES, LANES, 2), 0)
    store_block(_d(x, 1, step), points_in_steps(y, 24 * LANES, LANES, 3), 0)


def test_maps_multiply_matrices_with_vectors():
    load((_map_all,), "float32")
    step = LANES + 3
    x = np.random.default_rng(0).standard_normal(1 + 5 * step + LANES).astype(np.float32)
    y = np.full((4, 8 * LANES), np.nan, np.float32)
    _map_all(x, step, y)
    for matrix, products in zip(MATRICES, y, strict=True):
        exact = np.array(matrix, np.float64)
        vectors = np.array([x[1 + j * step :][:LANES] for j in range(exact.shape[1])], np.float64)
        actual = products[: len(matrix) * LANES].reshape(-1, LANES)
        np.testing.assert_array_less(np.abs(actual - exact @ vectors), 4e-7 * (np.abs(exact) @ np.abs(vectors)) + 1e-30)
        assert np.isnan(products[len(matrix) * LANES :]).all()
