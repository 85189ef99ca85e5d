"""The filter gradient of a convolution for float32, where most outputs have a gradient.

This is the case for a first layer without pooling. kernels.convolution_backward is faster where few outputs have one.

Shapes: N examples; T tiles; K parameters of a slot; C, H, W channels, rows, columns with the border; F filters; P, Q
output rows, columns; R, S filter rows, columns.
"""

from __future__ import annotations

import numpy as np

from partrain.kernels.compiler.flags import inlined, kernel
from partrain.kernels.compiler.target import num_vector_registers

from .convolution import grid_offsets
from .convolution_backward import clear
from .patch_vectors import SLIM, WIDE
from .simd.blocks import add_products, load_block, points_in_steps, points_of, store_block
from .simd.vectors import LANES, add, broadcast, element, less_equal, load, select, store, store_number

# Where there are registers for the sums of a filter of 5x5 with one channel, one pass is enough, and the addresses are
# those of five rows: mnist.yaml takes 2.6 µs an example instead of 3.1.
SIZE = 5
NUM_TAPS = SIZE * SIZE
FITS_REGISTERS = num_vector_registers() > NUM_TAPS


@kernel(
    "void(float32[:,:,:,::1], float32[:,:,:,::1], boolean, float32[:,:,:,::1], UniTuple(int64, 2),"
    " UniTuple(int64, 2), int64, float32[:,::1], int64, int64)"
)
def conv2d_backward_weights(
    x_NHWC, y_NPQF, rectified, dy_NPQF, kernel_size, stride, tile, slots_TK, weight_start, bias_start
):
    """Compute the filter gradients of tiles.

    The sums of many taps, each of a vector of filters, stay in registers over all positions.
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
    dw, db = np.zeros((num_taps + WIDE) * LANES, np.float32), np.empty(LANES, np.float32)
    for t in range(T):
        for part in range(0, F, LANES):
            f = max(0, min(part, F - LANES))
            clear(dw)
            clear(db)
            for n in range(t * tile, min(N, (t + 1) * tile)):
                start = n * P * Q * F + f
                if FITS_REGISTERS and R == S * C == SIZE:
                    _add_to_rows(x_NHWC, n * H * W * C, W * C, patches, dy_NPQF, y_NPQF, rectified, start, F, dw, db)
                else:
                    for place in range(P * Q):
                        store(masked, place * LANES, _masked(dy_NPQF, y_NPQF, rectified, start + place * F))
                    _add_to_taps(x_NHWC, n * H * W * C, taps, num_taps, patches, masked, dw, db)
            for lane in range(min(LANES, F)):
                store_number(slots_TK, t * K + bias_start + f + lane, element(db, lane))
                k = 0
                for r_s in range(R * S):
                    for c in range(C):
                        at = t * K + weight_start + ((f + lane) * C + c) * R * S + r_s
                        store_number(slots_TK, at, element(dw, k * LANES + lane))
                        k += 1


@inlined
def _masked(dy, y, rectified, at):
    """Return the gradient of a vector of filters; that which the ReLU has cut off is 0."""
    delta, zero = load(dy, at), broadcast(np.float32(0))
    return select(less_equal(load(y, at), zero), zero, delta) if rectified else delta


@inlined
def _add_to_taps(x, x_start, taps, num_taps, patches, masked, dw, db):
    """Add one example's gradient of each tap (r, s, c) of a vector of filters, and that of the biases."""
    k = 0
    bias = load(db, 0)
    while k < num_taps:
        bias = load(db, 0)  # each block sums it again, in the time in which the taps are multiplied
        if num_taps - k > SLIM:
            points = points_of(x, x_start, taps, k, WIDE)
            targets = points_in_steps(dw, k * LANES, LANES, WIDE)
            sums = load_block(targets, 0)
            for place in range(patches.size):
                delta = load(masked, place * LANES)
                bias = add(bias, delta)
                sums = add_products(sums, delta, points, element(patches, place))
            store_block(sums, targets, 0)
            k += WIDE
        else:
            slim_points = points_of(x, x_start, taps, k, SLIM)
            slim_targets = points_in_steps(dw, k * LANES, LANES, SLIM)
            slim_sums = load_block(slim_targets, 0)
            for place in range(patches.size):
                delta = load(masked, place * LANES)
                bias = add(bias, delta)
                slim_sums = add_products(slim_sums, delta, slim_points, element(patches, place))
            store_block(slim_sums, slim_targets, 0)
            k += SLIM
    store(db, 0, bias)


@inlined
def _add_to_rows(x, x_start, x_row, patches, dy, y, rectified, start, step, dw, db):
    """Do the same for NUM_TAPS taps, with the gradients of place p at start + p·step."""
    points = points_in_steps(x, x_start, x_row, SIZE)
    targets = points_in_steps(dw, 0, LANES, NUM_TAPS)
    bias, sums = load(db, 0), load_block(targets, 0)
    for place in range(patches.size):
        delta = _masked(dy, y, rectified, start + place * step)
        bias = add(bias, delta)
        sums = add_products(sums, delta, points, element(patches, place))
    store(db, 0, bias)
    store_block(sums, targets, 0)
