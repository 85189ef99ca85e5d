"""The sum of two branches as a loop: the definition that the fast kernel is tested against."""

from __future__ import annotations

from partrain.kernels.compiler.flags import kernel


@kernel("void({float}[::1], {float}[::1], {float}[::1])")
def add(a, b, y):
    """y = a + b, over all elements."""
    for k in range(y.size):
        y[k] = a[k] + b[k]
