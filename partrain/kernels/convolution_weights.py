"""The filter gradient of a convolution for float32, where most outputs have a gradient.

This is the case for a first layer without pooling. kernels.convolution_backward is faster where few outputs have one.

Shapes: N examples; T tiles; K parameters of a slot; C, H, W channels, rows, columns with the border; F filters; P, Q
output rows, columns; R, S filter rows, columns.
"""

from __future__ import annotations

import numpy as np

from partrain.kernels.compiler.flags import inlined, kernel
from partrain.kernels.convolution import grid_offsets
from partrain.kernels.convolution_backward import clear
from partrain.kernels.patch_vectors import SLIM, WIDE
from partrain.kernels.simd.blocks import add_products, load_block, points_in_steps, points_of, store_block
from partrain.kernels.simd.vectors import LANES, add, broadcast, element, less_equal, load, select, store, store_number


@kernel(
    "void(float32[:,:,:,::1], float32[:,:,:,::1], boolean, float32[:,:,:,::1], UniTuple(int64, 2),"
    " UniTuple(int64, 2), int64, float32[:,::1], int64, int64)"
)
def conv2d_backward_weights(
    x_NHWC, y_NPQF, rectified, dy_NPQF, kernel_size, stride, tile, slots_TK, weight_start, bias_start
):
    """Compute the filter gradients of tiles.

    The sums of up to WIDE taps, each of a vector of filters, stay in registers over all positions.
    The parameters are those of `conv2d_backward_winners`; `y_NPQF` is the output, and `dy_NPQF` its gradient.
    """
    N, H, W, C = x_NHWC.shape
    T, K = slots_TK.shape
    _, P, Q, F = y_NPQF.shape
    R, S = kernel_size
    num_taps = R * S * C
    taps = grid_offsets(R, S * C, W * C, 1, WIDE)
    patches = grid_offsets(P, Q, stride[0] * W * C, stride[1] * C, 0)
    masked = np.empty(P * Q * LANES, np.float32)
    dw = np.zeros((num_taps + WIDE) * LANES, np.float32)
    one = np.empty(LANES, np.float32)
    zero = broadcast(np.float32(0))
    for t in range(T):
        for part in range(0, F, LANES):
            f = max(0, min(part, F - LANES))
            clear(dw)
            bias = zero
            for n in range(t * tile, min(N, (t + 1) * tile)):
                for place in range(P * Q):
                    at = (n * P * Q + place) * F + f
                    delta = load(dy_NPQF, at)
                    if rectified:
                        delta = select(less_equal(load(y_NPQF, at), zero), zero, delta)
                    bias = add(bias, delta)
                    store(masked, place * LANES, delta)
                _add_to_taps(x_NHWC, n * H * W * C, taps, num_taps, patches, masked, dw)
            store(one, 0, bias)
            for lane in range(min(LANES, F)):
                store_number(slots_TK, t * K + bias_start + f + lane, one[lane])
                k = 0
                for r_s in range(R * S):
                    for c in range(C):
                        at = t * K + weight_start + ((f + lane) * C + c) * R * S + r_s
                        store_number(slots_TK, at, element(dw, k * LANES + lane))
                        k += 1


@inlined
def _add_to_taps(x, x_start, taps, num_taps, patches, masked, dw):
    """Add one example's gradient of each tap (r, s, c) of a vector of filters."""
    k = 0
    while k < num_taps:
        if num_taps - k > SLIM:
            points = points_of(x, x_start, taps, k, WIDE)
            targets = points_in_steps(dw, k * LANES, LANES, WIDE)
            sums = load_block(targets, 0)
            for place in range(patches.size):
                sums = add_products(sums, load(masked, place * LANES), points, element(patches, place))
            store_block(sums, targets, 0)
            k += WIDE
        else:
            slim_points = points_of(x, x_start, taps, k, SLIM)
            slim_targets = points_in_steps(dw, k * LANES, LANES, SLIM)
            slim_sums = load_block(slim_targets, 0)
            for place in range(patches.size):
                slim_sums = add_products(slim_sums, load(masked, place * LANES), slim_points, element(patches, place))
            store_block(slim_sums, slim_targets, 0)
            k += SLIM
