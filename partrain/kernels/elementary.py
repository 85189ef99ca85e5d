"""exp, log, sine, cosine and powers from exactly rounded operations: the same bits on every processor.

IEEE 754 defines the bits of +, -, *, / and of conversions. It does not define those of exp, log, sin, cos and pow: they
differ between C libraries, and between NumPy's code for different processors. So whatever reaches parameters, losses or
samples calls these functions. Each operation rounds by itself: none is fused, with or without hardware for that.

The functions take float64 numbers (`np.float64`) or arrays, and return the same kind, with the same bits. Kernels call
those of `kernels.elementary_inlined`, which are compiled from these.

Each function reduces its argument to a small interval around 0 and evaluates a polynomial there. The polynomials
interpolate in Chebyshev nodes, which is close to the minimax. With their coefficients rounded, they differ from the
functions by less than 2**-55 of the result. The errors in the docstrings are those of the whole function in ulp (units
in the last place of the result).

Sources: Cody, Waite, "Software manual for the elementary functions", 1980, chapters 6 to 8; Muller, "Elementary
functions: algorithms and implementation", 3rd edition, 2016, chapters 3 and 11; Tang, "Table-driven implementation of
the logarithm function in IEEE floating-point arithmetic", ACM TOMS 16 (1990) 378.
"""

from __future__ import annotations

from typing import Any

import numpy as np

# Adding and subtracting it rounds numbers up to 2**50 to whole numbers: float64 numbers around it are 1 apart. The bits
# of the sum, minus those of the constant, are the whole number.
_ROUNDER = 1.5 * 2.0**52
_ROUNDER_BITS = 0x4338000000000000
# log 2 in two parts; the first has 32 bits, so that its product with an exponent is exact.
_LOG2_HIGH, _LOG2_LOW = float.fromhex("0x1.62e42fefp-1"), float.fromhex("0x1.473de6af278edp-34")
_INVERSE_LOG2 = float.fromhex("0x1.71547652b82fep+0")
# pi in two parts.
_PI_HIGH, _PI_LOW = float.fromhex("0x1.921fb54442d18p+1"), float.fromhex("0x1.1a62633145c07p-53")
_SMALLEST_NORMAL = 2.0**-1022
_ROOT_HALF_BITS = 0x3FE6A09E667F3BCD
_EXPONENT_BIAS, _MANTISSA_BITS = 1023, 52


def select(condition: Any, a: Any, b: Any) -> Any:
    """Return a where the condition holds, else b."""
    return np.where(condition, a, b)[()]


def bits_of(numbers: Any) -> Any:
    """Return the bits of float64 numbers, as int64."""
    return numbers.view(np.int64)


def from_bits(bits: Any) -> Any:
    """Return the float64 numbers that have these bits."""
    return bits.view(np.float64)


def exp(x: Any) -> Any:
    """Return e to the power of x; the error is below 1 ulp, also of results that are subnormal.

    With n = round(x / log 2), r = x - n log 2, and p the polynomial:

        exp(x) = 2**n · (1 + r + r²·p(r)),   |r| < 0.3466
    """
    x = np.minimum(np.maximum(x, -746.0), 710.0)  # beyond, the result is 0 or infinite; NaN stays NaN
    shifted = x * _INVERSE_LOG2 + _ROUNDER
    n = shifted - _ROUNDER
    r = (x - n * _LOG2_HIGH) - n * _LOG2_LOW
    p = 2.091467944897855e-09
    p = p * r + 2.5105206475334834e-08
    p = p * r + 2.7557273661174726e-07
    p = p * r + 2.75572554255029e-06
    p = p * r + 2.4801587325533502e-05
    p = p * r + 0.00019841269874800683
    p = p * r + 0.0013888888888883752
    p = p * r + 0.008333333333326141
    p = p * r + 0.04166666666666667
    p = p * r + 0.1666666666666667
    p = p * r + 0.5
    # 2**n in two factors, of which neither overflows nor is subnormal: so only the last product rounds.
    exponent = bits_of(shifted) - _ROUNDER_BITS
    half = exponent >> 1
    factor_1 = from_bits((half + _EXPONENT_BIAS) << _MANTISSA_BITS)
    factor_2 = from_bits((exponent - half + _EXPONENT_BIAS) << _MANTISSA_BITS)
    return (1.0 + (r + r * r * p)) * factor_1 * factor_2


def log(x: Any) -> Any:
    """Return the natural logarithm of x; the error is below 1 ulp. Of 0 it is -infinity, of negative numbers NaN.

    With x = 2**k · (1 + f), f from sqrt(1/2) - 1 to sqrt(2) - 1, s = f / (2 + f), and p the polynomial:

        log(x) = k log 2 + log(1 + f),   log(1 + f) = 2 atanh(s) = f - (h - s·(h + s²·p(s²))),   h = f²/2
    """
    is_tiny = x < _SMALLEST_NORMAL
    bits = bits_of(x * select(is_tiny, 2.0**54, 1.0))
    k = (bits - _ROOT_HALF_BITS) >> _MANTISSA_BITS
    f = from_bits(bits - (k << _MANTISSA_BITS)) - 1.0
    k = k - select(is_tiny, 54.0, 0.0)
    s = f / (2.0 + f)
    z = s * s
    p = 0.13086626147840102
    p = p * z + 0.13268773138656886
    p = p * z + 0.15386239702814658
    p = p * z + 0.18181795640132906
    p = p * z + 0.22222222391713917
    p = p * z + 0.28571428570803614
    p = p * z + 0.4000000000000088
    p = p * z + 0.6666666666666666
    h = 0.5 * f * f
    result = k * _LOG2_HIGH - ((h - (s * (h + z * p) + k * _LOG2_LOW)) - f)
    result = select(x < np.inf, result, x)
    return select(x > 0.0, result, select(x == 0.0, -np.inf, np.nan))


def cos_sin_pi(x: Any) -> tuple[Any, Any]:
    """Return the cosine and the sine of pi·x, for x from -2**50 to 2**50; the errors are below 1.75 ulp.

    With q = round(2x), of which multiples of 4 are removed, and r = x - q/2 (both exact), and c, s the polynomials:

        cos(pi·(q/2 + r)) = cos(pi·q/2)·cos(pi·r) - sin(pi·q/2)·sin(pi·r),   |r| <= 1/4
        sin(pi·(q/2 + r)) = cos(pi·q/2)·sin(pi·r) + sin(pi·q/2)·cos(pi·r)
        cos(pi·r) = 1 + r²·c(r²),   sin(pi·r) = r·(pi + r²·s(r²))

    Cosine and sine of pi·q/2 are -1, 0 or 1, so only the polynomials round.
    """
    x = x - 2.0 * ((0.5 * x + _ROUNDER) - _ROUNDER)
    q = (2.0 * x + _ROUNDER) - _ROUNDER  # -2 to 2
    r = x - 0.5 * q
    z = r * r
    c = -0.00010370082971594627
    c = c * z + 0.001929493874894941
    c = c * z - 0.025806887964701878
    c = c * z + 0.23533063028399223
    c = c * z - 1.3352627688538095
    c = c * z + 4.058712126416765
    c = c * z - 4.934802200544679
    s = -2.1742067342478005e-05
    s = s * z + 0.0004662879326147481
    s = s * z - 0.0073704303122948235
    s = s * z + 0.08214588659727676
    s = s * z - 0.5992645293206478
    s = s * z + 2.550164039877345
    s = s * z - 5.16771278004997
    cos_r = 1.0 + z * c
    sin_r = r * _PI_HIGH + r * (_PI_LOW + z * s)
    cos_q = 1.0 - abs(q)
    sin_q = q * (2.0 - abs(q))
    return cos_q * cos_r - sin_q * sin_r, cos_q * sin_r + sin_q * cos_r


def power(base: float, exponent: int) -> float:
    """Return a number to the power of a whole number, 0 or more, by repeated multiplication in a fixed order.

    The relative error is at most exponent · 2**-53.
    """
    result, square = 1.0, base
    while exponent > 0:
        if exponent & 1:
            result *= square
        square *= square
        exponent >>= 1
    return result
