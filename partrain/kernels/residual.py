"""The sum of two branches for float32, in explicit vectors."""

from __future__ import annotations

import numpy as np

from partrain.kernels.compiler.flags import kernel
from partrain.kernels.simd.blocks import rectify
from partrain.kernels.simd.vectors import LANES, add, element, load, store, store_number


@kernel("void(float32[::1], float32[::1], boolean, float32[::1])")
def add_branches(a, b, rectified, y):
    """y = a + b, or max(a + b, 0) if `rectified`, over all elements; NaN stays NaN. `y` may be `a` or `b`."""
    whole = y.size - y.size % LANES
    if rectified:
        for k in range(0, whole, LANES):
            store(y, k, rectify(add(load(a, k), load(b, k))))
    else:
        for k in range(0, whole, LANES):
            store(y, k, add(load(a, k), load(b, k)))
    for k in range(whole, y.size):
        total = element(a, k) + element(b, k)
        store_number(y, k, np.float32(0) if rectified and total < 0 else total)
