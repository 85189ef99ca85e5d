from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from numba.extending import intrinsic

from partrain.kernels.compiler.flags import kernel
from partrain.kernels.compiler.loading import load
from partrain.kernels.simd import vectors
from partrain.kernels.simd.fused_multiply_add import fma_by_rounding_to_odd

NUM = 4096
LARGEST = np.finfo(np.float32).max


@intrinsic
def emulated(typing, a, b, c):
    """Return a * b + c as on a processor without an instruction for it."""

    def code(context, builder, signature, arguments):
        return fma_by_rounding_to_odd(builder, *arguments)

    return a(a, b, c), code


@kernel("void(float32[::1], float32[::1], float32[::1], float32[::1], float32[::1])")
def emulate(a, b, c, in_vectors, in_numbers):
    for i in range(0, a.size, vectors.LANES):
        sums = emulated(vectors.load(a, i), vectors.load(b, i), vectors.load(c, i))
        vectors.store(in_vectors, i, sums)
    for i in range(a.size):
        in_numbers[i] = emulated(a[i], b[i], c[i])


def emulated_fma(a, b, c):
    """Return the results of the emulation in vectors, which must be those of single numbers."""
    load((emulate,), "float32")
    in_vectors, in_numbers = np.empty((2, len(a)), np.float32)
    emulate(a, b, c, in_vectors, in_numbers)
    np.testing.assert_array_equal(in_vectors.view(np.uint32), in_numbers.view(np.uint32))
    return in_vectors


def nearest_float32(exact):
    """Return the float32 that is nearest to a Fraction; of two, the one whose last bit is 0."""
    near = np.float32(float(exact))
    candidates = [near, np.nextafter(near, np.float32(-np.inf)), np.nextafter(near, np.float32(np.inf))]
    finite = [number for number in candidates if np.isfinite(number)]
    return min(finite, key=lambda number: (abs(Fraction(float(number)) - exact), number.view(np.uint32) & 1))


def drawn(kind):
    rng = np.random.default_rng(17)
    if kind == "normal":
        return (rng.standard_normal(NUM).astype(np.float32) for _ in range(3))
    if kind == "any size":
        signs, exponents = rng.choice([-1.0, 1.0], (3, NUM)), rng.uniform(-60, 60, (3, NUM))
        return (signs * np.exp2(exponents)).astype(np.float32)
    if kind == "subnormal sums":
        return (rng.standard_normal((3, NUM)) * [[2.0**-70], [2.0**-70], [2.0**-140]]).astype(np.float32)
    # Products whose last bits make a tie in float32, and sums that are a little more or less than the tie.
    a, b = ((1 + rng.integers(0, 2**12, NUM) * 2.0**-12).astype(np.float32) for _ in range(2))
    return a, b, (rng.choice([-1.0, 1.0], NUM) * np.exp2(rng.integers(-60, 30, NUM))).astype(np.float32)


@pytest.mark.parametrize("kind", ["normal", "any size", "subnormal sums", "ties"])
def test_emulated_fused_multiply_add_is_rounded_once(kind):
    a, b, c = drawn(kind)
    exact = [Fraction(x) * Fraction(y) + Fraction(z) for x, y, z in zip(*(v.tolist() for v in (a, b, c)), strict=True)]
    np.testing.assert_array_equal(emulated_fma(a, b, c), [nearest_float32(number) for number in exact])


def test_emulated_fused_multiply_add_keeps_what_is_not_finite():
    cases = [
        *((np.inf, 2, 1, np.inf), (np.inf, 0, 1, np.nan), (np.inf, 1, -np.inf, np.nan), (1, 1, np.nan, np.nan)),
        *((LARGEST, 2, 1, np.inf), (LARGEST, 2, -LARGEST, LARGEST), (1, 1, -np.inf, -np.inf), (0, 1, -0.0, 0)),
    ]
    a, b, c, expected = np.array(2 * cases, np.float32).T.copy()
    np.testing.assert_array_equal(emulated_fma(a, b, c), expected)
