"""tanh, the error function and the logistic function in float64, from exactly rounded operations.

The polynomials interpolate in Chebyshev nodes. The errors are those against mpmath, absolute where so said.

Source: for the forms, Muller, "Elementary functions: algorithms and implementation", 3rd edition, 2016, chapter 3.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from partrain.kernels.elementary import exp, select

ROOT_HALF = 0.7071067811865476
# Of the density of the normal distribution: 1 / sqrt(2 pi).
DENSITY = 0.3989422804014327


def tanh(x: Any) -> Any:
    """Return the hyperbolic tangent; the relative error is below 2**-50.

    x + x·z·p(z) for |x| < 0.4, z = x²; elsewhere (1 - e) / (1 + e), e = exp(-2|x|), with the sign of x.
    """
    z = x * x
    p = -0.0001798367033295727
    p = p * z + 0.0005732117073728573
    p = p * z - 0.0014531879554384318
    p = p * z + 0.0035918824420581286
    p = p * z - 0.008863222061310261
    p = p * z + 0.02186948811976278
    p = p * z - 0.05396825396178988
    p = p * z + 0.13333333333329464
    p = p * z - 0.3333333333333333
    e = exp(-2.0 * abs(x))
    far = (1.0 - e) / (1.0 + e)
    return select(abs(x) < 0.4, x + x * (z * p), select(x < 0.0, -far, far))


def erf(x: Any) -> Any:
    """Return the error function; the relative error is below 2**-50.

    x·(2/sqrt(pi) + z·p(z)) for |x| < 1, z = x²; elsewhere 1 - exp(-a²)·q(v), a = |x| up to 6, with the sign of x. The
    polynomial q of v = (a - 3) / (a + 3) is the scaled complementary error function.
    """
    z = x * x
    p = 6.174097221305227e-11
    p = p * z - 1.150035715978528e-09
    p = p * z + 1.4692484859133258e-08
    p = p * z - 1.6355118610877705e-07
    p = p * z + 1.6461446656928561e-06
    p = p * z - 1.4925622504489842e-05
    p = p * z + 0.00012055332214716276
    p = p * z - 0.0008548327010033328
    p = p * z + 0.005223977625303518
    p = p * z - 0.026866170645123838
    p = p * z + 0.11283791670955111
    p = p * z - 0.37612638903183754
    a = np.minimum(abs(x), 6.0)
    v = (a - 3.0) / (a + 3.0)
    q = 3.0997111248611914e-08
    q = q * v + 2.1006932317945462e-08
    q = q * v - 2.2960836640172656e-07
    q = q * v - 2.902652004392866e-07
    q = q * v + 1.2519261188022667e-06
    q = q * v + 2.119283446053111e-06
    q = q * v - 7.978119385932173e-06
    q = q * v - 1.2860421831200831e-05
    q = q * v + 6.405655737002857e-05
    q = q * v + 4.525529412129632e-05
    q = q * v - 0.0005970619486416963
    q = q * v + 0.000707746439062207
    q = q * v + 0.004269136332839387
    q = q * v - 0.024392499318674116
    q = q * v + 0.07166583719797825
    q = q * v - 0.1501159365007772
    q = q * v + 0.24560380171233087
    q = q * v - 0.3262335600430372
    q = q * v + 0.17900115118138996
    far = 1.0 - exp(-a * a) * q
    return select(abs(x) < 1.0, x * (1.1283791670955126 + z * p), select(x < 0.0, -far, far))


def logistic(x: Any) -> Any:
    """Return 1 / (1 + exp(-x)); the relative error is below 2**-50 for x > -700."""
    return 1.0 / (1.0 + exp(-x))
