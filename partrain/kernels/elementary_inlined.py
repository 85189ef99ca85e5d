"""The functions of `kernels.elementary` and `kernels.elementary_activations` for kernels; for float64 numbers."""

from __future__ import annotations

import numpy as np

from partrain.kernels import elementary, elementary_activations
from partrain.kernels.compiler.flags import inlined, overload


@overload(elementary.select)
def _select(condition, a, b):
    return lambda condition, a, b: a if condition else b


@overload(elementary.bits_of)
def _bits_of(numbers):
    return lambda numbers: np.float64(numbers).view(np.int64)


@overload(elementary.from_bits)
def _from_bits(bits):
    return lambda bits: np.int64(bits).view(np.float64)


exp, log, cos_sin_pi = inlined(elementary.exp), inlined(elementary.log), inlined(elementary.cos_sin_pi)


@overload(elementary.exp)
def _exp(x):
    return lambda x: exp(x)


tanh, erf, logistic = (
    inlined(elementary_activations.tanh),
    inlined(elementary_activations.erf),
    inlined(elementary_activations.logistic),
)
