"""Activations as loops: the definition that the fast kernels are tested against. Computed in float64.

Sources: see kernels.activations.
"""

from __future__ import annotations

import numpy as np

from partrain.kernels.compiler.flags import kernel
from partrain.kernels.elementary_activations import DENSITY, ROOT_HALF
from partrain.kernels.elementary_inlined import erf, exp, logistic, tanh

_SLOPE, _CUBE = 0.7978845608028654, 0.044715


@kernel("void({float}[::1], float64, {float}[::1], {float}[::1])")
def leaky_relu(x, slope, y, d):
    """y = x if x > 0, else slope · x;  d = dy/dx."""
    for k in range(x.size):
        d[k] = 1.0 if x[k] > 0 else slope
        y[k] = x[k] * d[k]


@kernel("void({float}[::1], {float}[::1], {float}[::1])")
def gelu(x, y, d):
    """y = x · P(x),  d = P(x) + x · P'(x),  P(x) = (1 + erf(x / sqrt 2)) / 2."""
    for k in range(x.size):
        number = np.float64(x[k])
        p = 0.5 + 0.5 * erf(number * ROOT_HALF)
        d[k] = p + number * (DENSITY * exp(-0.5 * number * number))
        y[k] = number * p


@kernel("void({float}[::1], {float}[::1], {float}[::1])")
def gelu_by_tanh(x, y, d):
    """y = x · (1 + tanh(u)) / 2,  u = sqrt(2 / pi) · (x + 0.044715 x³);  d = dy/dx."""
    for k in range(x.size):
        number = np.float64(x[k])
        square = number * number
        t = tanh(_SLOPE * number * (1.0 + _CUBE * square))
        d[k] = 0.5 + 0.5 * t + 0.5 * number * (1.0 - t * t) * (_SLOPE * (1.0 + 3.0 * _CUBE * square))
        y[k] = number * (0.5 + 0.5 * t)


@kernel("void({float}[::1], {float}[::1], {float}[::1])")
def silu(x, y, d):
    """y = x · s,  d = s · (1 + x · (1 - s)),  s = 1 / (1 + exp(-x))."""
    for k in range(x.size):
        number = np.float64(x[k])
        s = logistic(number)
        d[k] = s * (1.0 + number * (1.0 - s))
        y[k] = number * s


@kernel("void({float}[::1], {float}[::1], {float}[::1])")
def hyperbolic_tangent(x, y, d):
    """y = tanh(x),  d = 1 - y²."""
    for k in range(x.size):
        t = tanh(np.float64(x[k]))
        d[k] = 1.0 - t * t
        y[k] = t


@kernel("void({float}[::1], {float}[::1], {float}[::1])")
def sigmoid(x, y, d):
    """y = 1 / (1 + exp(-x)),  d = y · (1 - y)."""
    for k in range(x.size):
        s = logistic(np.float64(x[k]))
        d[k] = s * (1.0 - s)
        y[k] = s


@kernel("void({float}[::1], {float}[::1], {float}[::1])")
def multiply_derivatives(dy, d, dx):
    """dx = dy · d, over all elements."""
    for k in range(d.size):
        dx[k] = dy[k] * d[k]
