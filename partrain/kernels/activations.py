"""Activations for float32: the forward pass writes each number's activation y and its derivative d.

So the backward pass multiplies, and no exponential is computed twice.

Sources: Maas et al., "Rectifier nonlinearities improve neural network acoustic models", 2013; Hendrycks, Gimpel, arXiv
1606.08415; Elfwing et al., arXiv 1702.03118.
"""

from __future__ import annotations

import numpy as np

from partrain.kernels import elementary_float32
from partrain.kernels.compiler.flags import kernel
from partrain.kernels.elementary_float32 import erf, exp, logistic

from .simd.vectors import element, store_number

_HALF, _ONE, _THREE = np.float32(0.5), np.float32(1), np.float32(3)
_ROOT_HALF, _DENSITY = np.float32(0.7071067811865476), np.float32(0.3989422804014327)
# Of the approximation by tanh: sqrt(2 / pi), and the factor of x³.
_SLOPE, _CUBE = np.float32(0.7978845608028654), np.float32(0.044715)


@kernel("void(float32[::1], float32[::1], float32[::1], float32[::1])")
def leaky_relu_forward(x, slope_1, y, d):
    """y = x if x > 0, else slope · x."""
    slope = slope_1[0]
    for k in range(x.size):
        factor = _ONE if x[k] > 0 else slope
        d[k] = factor
        y[k] = factor * x[k]


@kernel("void(float32[::1], float32[::1], float32[::1])")
def gelu_forward(x, y, d):
    """y = x · P(x), P the normal distribution function: (1 + erf(x / sqrt 2)) / 2."""
    for k in range(x.size):
        e = exp(-_HALF * x[k] * x[k])
        p = _HALF + _HALF * erf(x[k] * _ROOT_HALF, e)
        d[k] = p + x[k] * (_DENSITY * e)
        y[k] = x[k] * p


@kernel("void(float32[::1], float32[::1], float32[::1])")
def gelu_by_tanh_forward(x, y, d):
    """y = x · (1 + tanh(u)) / 2,  u = sqrt(2 / pi) · (x + 0.044715 x³)."""
    for k in range(x.size):
        square = x[k] * x[k]
        t = elementary_float32.tanh(_SLOPE * x[k] * (_ONE + _CUBE * square))
        p = _HALF + _HALF * t
        d[k] = p + _HALF * x[k] * ((_ONE - t * t) * (_SLOPE * (_ONE + _THREE * _CUBE * square)))
        y[k] = x[k] * p


@kernel("void(float32[::1], float32[::1], float32[::1])")
def silu_forward(x, y, d):
    """y = x / (1 + exp(-x))."""
    for k in range(x.size):
        s = logistic(x[k])
        d[k] = s * (_ONE + x[k] * (_ONE - s))
        y[k] = x[k] * s


@kernel("void(float32[::1], float32[::1], float32[::1])")
def tanh_forward(x, y, d):
    """y = tanh(x)."""
    for k in range(x.size):
        t = elementary_float32.tanh(x[k])
        d[k] = _ONE - t * t
        y[k] = t


@kernel("void(float32[::1], float32[::1], float32[::1])")
def sigmoid_forward(x, y, d):
    """y = 1 / (1 + exp(-x))."""
    for k in range(x.size):
        s = logistic(x[k])
        d[k] = s * (_ONE - s)
        y[k] = s


@kernel("void(float32[::1], float32[::1], float32[::1])")
def multiply_derivatives(dy, d, dx):
    """dx = dy · d, over all elements. `dx` may be `dy`."""
    for k in range(d.size):
        store_number(dx, k, element(dy, k) * element(d, k))
