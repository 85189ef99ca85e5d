"""exp, tanh, the error function and the logistic function in float32, for kernels: the same bits on every processor.

They have the forms of kernels.elementary and kernels.elementary_activations with fewer terms, so that a vector holds
twice as many numbers. Each operation rounds by itself. Relative errors (of `erf` and `logistic`, absolute ones for
negative x) are below 4 · 2**-24. Arguments and results are single numbers; LLVM computes several at once.
"""

from __future__ import annotations

import numpy as np

from partrain.kernels.compiler.flags import always_inlined

_ONE, _TWO, _ZERO = np.float32(1), np.float32(2), np.float32(0)
# Adding and subtracting it rounds numbers up to 2**21 to whole numbers; the bits of the sum, minus its own, are these.
_ROUNDER, _ROUNDER_BITS = np.float32(1.5 * 2.0**23), np.int32(0x4B400000)
_INVERSE_LOG2 = np.float32(1.4426950408889634)
# log 2 in two parts; the first has 15 bits, so that its product with an exponent is exact.
_LOG2_HIGH, _LOG2_LOW = np.float32(0.693145751953125), np.float32(1.42860682030941723212e-6)
_LOWEST, _HIGHEST = np.float32(-104), np.float32(89)
_E0, _E1, _E2 = np.float32(0.5), np.float32(0.16666576266288757), np.float32(0.04166655242443085)
_E3, _E4 = np.float32(0.008363345637917519), np.float32(0.0013926392421126366)
_T = tuple(
    np.float32(c)
    for c in (-0.3333333134651184, 0.13332915306091309, -0.053873948752880096, 0.021110959351062775,
              -0.006269119679927826)
)  # fmt: skip
_P = tuple(
    np.float32(c)
    for c in (1.1283791670955126, -0.37612637877464294, 0.11283790320158005, -0.026865946128964424,
              0.005222611129283905, -0.0008508544997312129, 0.00011451736645540223, -1.021674779622117e-05)
)  # fmt: skip
_Q = tuple(
    np.float32(c)
    for c in (0.17900115251541138, -0.32623356580734253, 0.2456037998199463, -0.150115966796875, 0.07166536897420883,
              -0.024392619729042053, 0.004282343667000532, 0.0007556947530247271, -0.0005541143473237753)
)  # fmt: skip
_TANH_BORDER, _THREE, _FOUR = np.float32(0.6), np.float32(3), np.float32(4)


@always_inlined
def exp(x):
    """Return e to the power of x."""
    x = _LOWEST if x < _LOWEST else x
    x = _HIGHEST if x > _HIGHEST else x
    shifted = x * _INVERSE_LOG2 + _ROUNDER
    n = shifted - _ROUNDER
    r = (x - n * _LOG2_HIGH) - n * _LOG2_LOW
    p = (((_E4 * r + _E3) * r + _E2) * r + _E1) * r + _E0
    # 2**n in two factors, of which neither overflows nor is subnormal.
    exponent = np.int32(np.float32(shifted).view(np.int32) - _ROUNDER_BITS)
    half = np.int32(exponent >> np.int32(1))
    factor_1 = np.int32(np.int32(half + np.int32(127)) << np.int32(23)).view(np.float32)
    factor_2 = np.int32(np.int32(exponent - half + np.int32(127)) << np.int32(23)).view(np.float32)
    return (_ONE + (r + r * r * p)) * factor_1 * factor_2


@always_inlined
def logistic(x):
    """Return 1 / (1 + exp(-x))."""
    return _ONE / (_ONE + exp(-x))


@always_inlined
def tanh(x):
    """Return the hyperbolic tangent."""
    z = x * x
    p = (((_T[4] * z + _T[3]) * z + _T[2]) * z + _T[1]) * z + _T[0]
    e = exp(-_TWO * abs(x))
    far = (_ONE - e) / (_ONE + e)
    signed = -far if x < _ZERO else far
    return x + x * (z * p) if abs(x) < _TANH_BORDER else signed


@always_inlined
def erf(x, e):
    """Return the error function of x; `e` is exp(-x²)."""
    z = x * x
    p = ((((_P[7] * z + _P[6]) * z + _P[5]) * z + _P[4]) * z + _P[3]) * z
    p = (((p + _P[2]) * z + _P[1]) * z + _P[0]) * x
    a = abs(x)
    a = _FOUR if a > _FOUR else a
    v = (a - _THREE) / (a + _THREE)
    q = (((((((_Q[8] * v + _Q[7]) * v + _Q[6]) * v + _Q[5]) * v + _Q[4]) * v + _Q[3]) * v + _Q[2]) * v + _Q[1]) * v
    far = _ONE - e * (q + _Q[0])
    signed = -far if x < _ZERO else far
    return p if abs(x) < _ONE else signed
