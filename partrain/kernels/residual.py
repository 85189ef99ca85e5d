"""The sum of two branches for float32, in explicit vectors, and the gradient at what both read.

Shapes: N examples; H, W, C rows, columns, channels; vectors are images of one place. Arrays may have a border of rows
and columns, which keeps its value, zero.
"""

from __future__ import annotations

import numpy as np

from partrain.kernels.compiler.flags import always_inlined, kernel

from .simd.blocks import rectify
from .simd.vectors import LANES, add, broadcast, element, less, load, select, store, store_number

_IMAGES, _BORDER = "float32[:,:,:,::1]", "UniTuple(int64, 2)"


@always_inlined
def _row(n, i, H, W, C, border):
    """Return where row i of image n begins, in an array of images with a border."""
    return ((n * (H + 2 * border[0]) + i + border[0]) * (W + 2 * border[1]) + border[1]) * C


@kernel(f"void({_IMAGES}, {_IMAGES}, {_BORDER}, boolean, {_BORDER}, {_IMAGES})")
def add_branches(a_NHWC, b_NHWC, b_border, rectified, border, y_NHWC):
    """y = a + b, or max(a + b, 0) if `rectified`, over all elements; NaN stays NaN. `y` may be `a`, or `b`.

    Parameters
    ----------
    a_NHWC : without a border; read.
    b_border, b_NHWC : the other branch; read.
    border, y_NHWC : the sum; overwritten but for the border.
    """
    N, H, W, C = a_NHWC.shape
    whole = W * C - W * C % LANES
    for n in range(N):
        for i in range(H):
            a, b, y = (n * H + i) * W * C, _row(n, i, H, W, C, b_border), _row(n, i, H, W, C, border)
            if rectified:
                for k in range(0, whole, LANES):
                    store(y_NHWC, y + k, rectify(add(load(a_NHWC, a + k), load(b_NHWC, b + k))))
            else:
                for k in range(0, whole, LANES):
                    store(y_NHWC, y + k, add(load(a_NHWC, a + k), load(b_NHWC, b + k)))
            for k in range(whole, W * C):
                total = element(a_NHWC, a + k) + element(b_NHWC, b + k)
                store_number(y_NHWC, y + k, np.float32(0) if rectified and total < 0 else total)


@kernel(f"void({_IMAGES}, {_IMAGES}, boolean, {_IMAGES}, {_BORDER}, {_IMAGES})")
def add_branch_gradients(a_NHWC, b_NHWC, rectified, x_NHWC, border, dx_NHWC):
    """dx = a + b, the gradients of both branches; where x is not above 0, 0, if `rectified`: x is a ReLU's output.

    Parameters
    ----------
    a_NHWC, b_NHWC : without a border; read.
    x_NHWC, border : what both branches read, and its border; read.
    dx_NHWC : overwritten; without a border. It may be `a_NHWC`, or `b_NHWC`.
    """
    N, H, W, C = dx_NHWC.shape
    whole = W * C - W * C % LANES
    zero = broadcast(np.float32(0))
    for n in range(N):
        for i in range(H):
            at, x = (n * H + i) * W * C, _row(n, i, H, W, C, border)
            if rectified:
                for k in range(0, whole, LANES):
                    total = add(load(a_NHWC, at + k), load(b_NHWC, at + k))
                    store(dx_NHWC, at + k, select(less(zero, load(x_NHWC, x + k)), total, zero))
            else:
                for k in range(0, whole, LANES):
                    store(dx_NHWC, at + k, add(load(a_NHWC, at + k), load(b_NHWC, at + k)))
            for k in range(whole, W * C):
                number = element(a_NHWC, at + k) + element(b_NHWC, at + k)
                is_masked = rectified and not element(x_NHWC, x + k) > 0
                store_number(dx_NHWC, at + k, np.float32(0) if is_masked else number)
