"""Toom-Cook convolution: fewer multiplications for small filters, by polynomials.

A polynomial of degree n-1 is known by its values at n points, the last of which may be infinity (where the value is
the leading coefficient). To multiply two polynomials, evaluate both, multiply the values, and interpolate. F(m, r), the
transposed algorithm, computes m neighbouring outputs of a filter of r taps with n = m + r - 1 multiplications in place
of m·r:

    y = A^T [(G g) * (B^T d)]        y[i] = sum over j of  d[i+j] · g[j],   i < m, j < r

d are n inputs and g the filter; `*` multiplies number by number. G evaluates the filter, and B^T and A^T are the
transposed interpolation and evaluation. With channels, the products are summed over them before A^T, so that the
transforms cost little if there are many channels and filters.

The points decide the rounding errors: of the multiples of 1/8 that were tried, those below have the smallest. For
standard normal numbers and 8 channels, the largest error is 0.06 (5 taps in one dimension), 0.11 (3x3) or 0.11 (5x5)
of 1e-6 · sqrt(K) · sum|x||w|, K terms; with the usual points it is 0.32 (3x3: 0, ±1, ±2) or 0.22 (5x5: also ±1/2). An
output shares the errors of its neighbours in a tile: if all its own inputs are nearly 0, its error is not.

Sources: Toom (1963); Cook (1966); Winograd, "Arithmetic Complexity of Computations" (1980); Lavin & Gray, "Fast
Algorithms for Convolutional Neural Networks", arXiv 1509.09308.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

Matrix = tuple[tuple[Fraction, ...], ...]
Points = tuple[Fraction, ...]

_ZERO, _ONE = Fraction(0), Fraction(1)


def _with_opposites(*points: Fraction) -> Points:
    return (_ZERO, *(signed for a in points for signed in (a, -a)))


# The finite points; n is one more. A pair ±a shares most of the work of a transform. The coefficients of B^T and A^T
# are exact in float32.
POINTS_OF_3X3 = _with_opposites(Fraction(5, 8), Fraction(3, 2))
POINTS_OF_5 = _with_opposites(Fraction(1), Fraction(2), Fraction(1, 2))
POINTS_OF_5X5 = _with_opposites(Fraction(1, 2), Fraction(1), Fraction(15, 8))


def _powers(a: Fraction, num: int) -> tuple[Fraction, ...]:
    """Return 1, a, a², …"""
    powers = [_ONE]
    while len(powers) < num:
        powers.append(powers[-1] * a)
    return tuple(powers)


def _coefficients(roots: Sequence[Fraction], size: int) -> tuple[Fraction, ...]:
    """Return the coefficients of the polynomial with these roots, from x^0 on, and zeros up to `size`."""
    product = [_ONE]
    for root in roots:
        shifted, scaled = [_ZERO, *product], [*(-root * c for c in product), _ZERO]
        product = [a + b for a, b in zip(shifted, scaled, strict=True)]
    return (*product, *[_ZERO] * (size - len(product)))


def output_transform(points: Points, m: int) -> Matrix:
    """Return A^T (m, n) of F(m, r)."""
    columns = [_powers(a, m) for a in points] + [(*[_ZERO] * (m - 1), _ONE)]
    return tuple(zip(*columns, strict=True))


def filter_transform(points: Points, r: int) -> Matrix:
    """Return G (n, r) of F(m, r)."""
    rows = []
    for a in points:
        scale = _ONE
        for other in points:
            scale *= a - other if other != a else 1
        rows.append(tuple(power / scale for power in _powers(a, r)))
    return (*rows, (*[_ZERO] * (r - 1), _ONE))


def input_transform(points: Points) -> Matrix:
    """Return B^T (n, n) of all F(m, r) with m + r - 1 = n."""
    n = len(points) + 1
    others = ([b for b in points if b != a] for a in points)
    return (*(_coefficients(roots, n) for roots in others), _coefficients(points, n))
