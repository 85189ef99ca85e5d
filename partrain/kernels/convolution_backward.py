"""The backward pass of a convolution for float32, over a list of the outputs whose gradient is not zero.

After ReLU and max pooling, at most one output of each window has a gradient, and about half of those are zero: a list
of winners (filter, gradient, position) is much shorter than the output. Without pooling every output is a winner, and
the same code is the general backward pass, for any stride and padding.

Filters are stored as patch vectors (kernels.patch_vectors).

Shapes: N examples; T tiles; K parameters of a slot; C, H, W channels, rows, columns with the border; F filters; R, S
filter rows, columns; P, Q output rows, columns; I, J the same after pooling.
"""

from __future__ import annotations

import numpy as np

from partrain.kernels.compiler.flags import inlined, kernel

from .convolution import grid_offsets
from .patch_vectors import SLIM, WIDE, lanes_of_patch, lay_out, patch_vectors
from .simd.blocks import (
    add_scaled,
    load_block,
    points_in_steps,
    points_of,
    scatter_add,
    store_block,
)
from .simd.vectors import LANES, broadcast, element, load, store, store_number
from .winner_lists import list_winners, sort_by_place

# A filter's list is read at this many places in turn, so that successive entries do not write to the same numbers.
STREAMS = 4
# With this many filters or more, sorting the list by position is faster.
MANY = 12
# Of the input that the winners of a band read: more than the first-level cache, so that the lists are long enough.
BAND_BYTES = 49152


@inlined
def clear(array):
    for i in range(array.size):
        array[i] = 0


@inlined
def _copy_run(source, start, target, at, count):
    """Copy `count` numbers; the last vector overlaps the one before it."""
    if count >= LANES:
        for part in range(0, count, LANES):
            i = min(part, count - LANES)
            store(target, at + i, load(source, start + i))
    else:
        for i in range(count):
            store_number(target, at + i, source[start + i])


@inlined
def _add_to_filters(x, x_start, vectors, f_start, ends, first, last, offsets, deltas, dw, db, bias_start):
    """Add delta * patch of each entry first..last-1 to one filter's gradient, and delta to that of its bias."""
    v = 0
    bias = np.float32(0)
    for block in range(ends.size):
        bias = element(db, bias_start)  # each block sums it again, in the time in which the vectors are multiplied
        if element(ends, block) - v > SLIM:
            points = points_of(x, x_start, vectors, v, WIDE)
            targets = points_in_steps(dw, f_start + v * LANES, LANES, WIDE)
            sums = load_block(targets, 0)
            for i in range(first, last):
                sums = add_scaled(sums, broadcast(element(deltas, i)), points, element(offsets, i))
                bias += element(deltas, i)
            store_block(sums, targets, 0)
        else:
            slim_points = points_of(x, x_start, vectors, v, SLIM)
            slim_targets = points_in_steps(dw, f_start + v * LANES, LANES, SLIM)
            slim_sums = load_block(slim_targets, 0)
            for i in range(first, last):
                slim_sums = add_scaled(slim_sums, broadcast(element(deltas, i)), slim_points, element(offsets, i))
                bias += element(deltas, i)
            store_block(slim_sums, slim_targets, 0)
        v = element(ends, block)
    store_number(db, bias_start, bias)


@inlined
def _scatter_to_input(w, f_start, vectors, ends, patches, first, last, places, deltas, dx):
    """Add delta * filter to the patch of each entry first..last-1 of one filter."""
    v = 0
    length = (last - first + STREAMS - 1) // STREAMS
    for block in range(ends.size):
        if element(ends, block) - v > SLIM:
            points = points_of(dx, 0, vectors, v, WIDE)
            filters = load_block(points_in_steps(w, f_start + v * LANES, LANES, WIDE), 0)
            for head in range(first, first + length):
                for i in range(head, last, length):
                    scatter_add(points, element(patches, element(places, i)), broadcast(element(deltas, i)), filters)
        else:
            slim_points = points_of(dx, 0, vectors, v, SLIM)
            slim_filters = load_block(points_in_steps(w, f_start + v * LANES, LANES, SLIM), 0)
            for head in range(first, first + length):
                for i in range(head, last, length):
                    scatter_add(
                        slim_points, element(patches, element(places, i)), broadcast(element(deltas, i)), slim_filters
                    )
        v = element(ends, block)


@inlined
def _gather_to_input(w, vectors, ends, patches, place_starts, filters, deltas, dx):
    """Add the contributions of all filters to each position's patch, in registers."""
    v = 0
    for block in range(ends.size):
        if element(ends, block) - v > SLIM:
            points = points_of(dx, 0, vectors, v, WIDE)
            w_points = points_in_steps(w, v * LANES, LANES, WIDE)
            for t in range(patches.size):
                first, last = element(place_starts, t), element(place_starts, t + 1)
                if first < last:
                    at = element(patches, t)
                    sums = load_block(points, at)
                    for i in range(first, last):
                        sums = add_scaled(sums, broadcast(element(deltas, i)), w_points, element(filters, i))
                    store_block(sums, points, at)
        else:
            slim_points = points_of(dx, 0, vectors, v, SLIM)
            slim_w_points = points_in_steps(w, v * LANES, LANES, SLIM)
            for t in range(patches.size):
                first, last = element(place_starts, t), element(place_starts, t + 1)
                if first < last:
                    at = element(patches, t)
                    slim_sums = load_block(slim_points, at)
                    for i in range(first, last):
                        slim_sums = add_scaled(
                            slim_sums, broadcast(element(deltas, i)), slim_w_points, element(filters, i)
                        )
                    store_block(slim_sums, slim_points, at)
        v = element(ends, block)


@inlined
def _add_to_input(w, F, patch_size, vectors, ends, patches, starts, places, deltas, sorted_list, dx):
    """Add the contributions of a list of winners to the gradient at the input."""
    if F < MANY:
        for f in range(F):
            _scatter_to_input(w, f * patch_size, vectors, ends, patches, starts[f], starts[f + 1], places, deltas, dx)
    else:
        place_starts, filters, sorted_deltas = sorted_list
        sort_by_place(starts, F, places, place_starts, patch_size, deltas, filters, sorted_deltas)
        _gather_to_input(w, vectors, ends, patches, place_starts, filters, sorted_deltas, dx)


@inlined
def _write_input(dx, dx_row, border, n, dx_NHWC):
    """Copy the gradient at an example's input without the border."""
    _, h, w, C = dx_NHWC.shape
    for row in range(h):
        _copy_run(dx, (row + border[0]) * dx_row + border[1] * C, dx_NHWC, (n * h + row) * w * C, w * C)


@inlined
def _filters_from_vectors(dw_vectors, lanes, patch_size, F, C, start, dw):
    """Copy from patch vectors to (f, c, r, s)."""
    k = start
    for f in range(F):
        for c in range(C):
            for place in range(0, lanes.size, C):
                store_number(dw, k, element(dw_vectors, f * patch_size + element(lanes, place + c)))
                k += 1


@inlined
def _list_of(F, size):
    """Return the arrays of a list of winners; see list_winners."""
    by_place, by_filter, d_by_filter = np.empty(size, np.int32), np.empty(size, np.int32), np.empty(size, np.float32)
    starts, places, offsets = np.empty(F + 1, np.int64), np.empty(size, np.int32), np.empty(size, np.int64)
    return by_place, by_filter, d_by_filter, starts, places, offsets, np.empty(size, np.float32)


@kernel(
    "void(float32[:,:,:,::1], float32[:,::1], float32[:,::1], int64, int64, float32[:,:,:,::1], boolean,"
    " int32[:,:,:,::1], UniTuple(int64, 2), UniTuple(int64, 2), UniTuple(int64, 2), UniTuple(int64, 2), int64,"
    " float32[:,::1], int64, int64, float32[:,:,:,::1])"
)
def conv2d_backward_winners(
    x_NHWC, w_FV, d_ND, place_step, filter_step, pooled_NIJF, rectified, winner_NIJF, kernel_size, stride, border,
    output_size, tile, slots_TK, weight_start, bias_start, dx_NHWC,
):  # fmt: skip
    """Compute the filter gradients of tiles, and the gradient at the input.

    Parameters
    ----------
    x_NHWC : the layer's input, with its border; read.
    w_FV : filters from `pack_patch_vectors`; read.
    d_ND : gradient at the pooled output; position (i, j), filter f is at (i·J + j)·place_step + f·filter_step of the
        example's row; read-only.
    pooled_NIJF : the pooled output; with `rectified`, the gradient is zero where it is not positive. Read.
    winner_NIJF : position p·Q + q of the output that each pooled number was taken from; read-only.
    kernel_size, stride, border, output_size : (R, S), rows and columns of a step and of the border, (P, Q).
    tile : examples in a tile; the last tile may have fewer.
    slots_TK : a row for each tile; its parts from `weight_start` (F, C, R, S) and `bias_start` (F,) are overwritten.
    dx_NHWC : without the border; overwritten. If it is empty, the gradient at the input is not computed.
    """
    N, H, W, C = x_NHWC.shape
    T, K = slots_TK.shape
    _, I, J, F = pooled_NIJF.shape
    (R, S), (P, Q) = kernel_size, output_size
    layout = lay_out(R, S * C)
    lanes, ends = lanes_of_patch(layout, R, S * C), layout[2]
    vectors = patch_vectors(layout, W * C, 0, 0)
    patch_size = vectors.size * LANES
    patches = grid_offsets(P, Q, stride[0] * W * C, stride[1] * C, 0)
    # The input's gradient is summed in rows that are a vector longer, so that no two vectors of a patch overlap.
    dx_row = W * C + LANES
    dx_vectors = patch_vectors(layout, dx_row, R * dx_row, LANES)
    dx_patches = grid_offsets(P, Q, stride[0] * dx_row, stride[1] * C, 0)
    # Pooled rows whose input is BAND_BYTES long.
    band_rows = max(1, min(I, (BAND_BYTES // (4 * W * C) - R + 1) * I // max(1, P * stride[0])))
    most = F * band_rows * J + LANES
    by_place, by_filter, d_by_filter, starts, places, offsets, deltas = _list_of(F, most)
    sorted_list = np.empty(P * Q + 2, np.int64), np.empty(most, np.int64), np.empty(most, np.float32)
    dw = np.empty(F * patch_size, np.float32)
    dx = np.empty((H + 1) * dx_row + WIDE * LANES, np.float32)
    wants_dx = dx_NHWC.size > 0
    for t in range(T):
        clear(dw)
        clear(slots_TK[t, bias_start : bias_start + F])
        for n in range(t * tile, min(N, (t + 1) * tile)):
            if wants_dx:
                clear(dx)
            for band in range(0, I, band_rows):
                first, num = band * J, min(I - band, band_rows) * J
                list_winners(d_ND, n * d_ND.shape[1] + first * place_step, place_step, filter_step, pooled_NIJF,
                             rectified, winner_NIJF, (n * I * J + first) * F, num, F, patches, by_place, by_filter,
                             d_by_filter, starts, places, offsets, deltas)  # fmt: skip
                for f in range(F):
                    _add_to_filters(x_NHWC, n * H * W * C, vectors, f * patch_size, ends, starts[f],
                                    starts[f + 1], offsets, deltas, dw, slots_TK, t * K + bias_start + f)  # fmt: skip
                if wants_dx:
                    _add_to_input(w_FV, F, patch_size, dx_vectors, ends, dx_patches, starts, places, deltas,
                                  sorted_list, dx)  # fmt: skip
            if wants_dx:
                _write_input(dx, dx_row, border, n, dx_NHWC)
        _filters_from_vectors(dw, lanes, patch_size, F, C, t * K + weight_start, slots_TK)
