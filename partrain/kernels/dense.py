"""Dense layers for float32, in explicit vectors, a few rows at a time.

Shapes: N examples; D, E inputs, outputs.
"""

from __future__ import annotations

import numpy as np

from partrain.kernels.compiler.flags import inlined, kernel
from partrain.kernels.compiler.target import num_vector_registers

from .block_tree import EVEN_SPAN, SPAN, WIDE_SPAN, join_numbers, join_vectors_of, stack_for
from .delta_lists import list_by_example, list_deltas
from .simd.blocks import (
    add_dots,
    add_rows,
    add_scaled,
    load_block,
    load_rows,
    points_in_steps,
    points_of,
    store_block,
    zeros,
)
from .simd.vectors import (
    LANES,
    WAYS,
    broadcast,
    element,
    fused,
    load,
    multiply_add,
    store,
    store_number,
    sum_ways,
)

# Rows of x and units whose sums stay in registers at once, and their product.
ROWS = 4
UNITS = 6 if num_vector_registers() == 32 else 3
DOTS = ROWS * UNITS
# Rows of x whose dot products with UNITS units stay in registers: those of two rows share a vector that is wide enough.
ROWS_OF_VECTOR = max(1, LANES // WAYS)
DOT_ROWS = ROWS * ROWS_OF_VECTOR
# Columns in a block, so that this part of the rows stays in the first-level cache.
STRETCH = 1024
# With fewer units, copying columns to a panel takes longer than it saves.
_LEAST_UNITS = 8
# Vectors of columns in a strip, and its product with ROWS: so many sums stay in registers.
STRIP = 3
STRIP_SUMS = ROWS * STRIP
# Size of the panel of weights that the backward pass copies: rows, and strips of columns.
STREAMS = 32
STRIPS = 4
# If more of the deltas are not zero, lists of them do not pay.
_MOST_LISTED = 0.75


@inlined
def _row_offsets(N, step, padding):
    """Return the index at which each row starts; the last one is repeated."""
    offsets = np.empty(N + padding, np.int64)
    for n in range(N + padding):
        offsets[n] = min(n, N - 1) * step
    return offsets


@inlined
def _dot(j, u):
    """Return the position of row j's and unit u's product in a stored block of `add_dots`."""
    return (j // ROWS_OF_VECTOR * UNITS + u) * ROWS_OF_VECTOR + j % ROWS_OF_VECTOR


@inlined
def _padded_ends(a, N, D, whole, padding):
    """Return what follows the first `whole` numbers of each row, as WAYS numbers: zeros are appended."""
    ends = np.zeros((N + padding) * WAYS, np.float32)
    for n in range(N):
        for i in range(whole, D):
            store_number(ends, n * WAYS + i - whole, element(a, n * D + i))
    return ends


@kernel("void(float32[:,::1], float32[:,::1], float32[::1], boolean, float32[:,::1])")
def dense_forward(x_ND, w_ED, b_E, rectified, y_NE):
    """y[n,e] = b[e] + sum over d of  x[n,d] · w[e,d]; if `rectified`, max(y, 0) of it. Overwrites `y_NE`.

    A row is padded with zeros to a multiple of WAYS. Each of WAYS partial sums gets every WAYS-th d; after each STRETCH
    of columns the partial sums are added in a fixed order.
    """
    N, D = x_ND.shape
    E = w_ED.shape[0]
    x_rows = _row_offsets(N, D, DOT_ROWS)
    w_rows = _row_offsets(E, D, UNITS)
    ways = np.empty(DOT_ROWS * UNITS * WAYS, np.float32)
    whole = D - D % WAYS
    x_ends = w_ends = np.empty(0, np.float32)
    if whole < D:
        x_ends = _padded_ends(x_ND, N, D, whole, DOT_ROWS)
        w_ends = _padded_ends(w_ED, E, D, whole, UNITS)
    for first in range(0, D, STRETCH):
        last = min(whole, first + STRETCH)
        adds_ends = whole < D <= first + STRETCH
        for e in range(0, E, UNITS):
            w_points = points_of(w_ED, 0, w_rows, e, UNITS)
            for n in range(0, N, DOT_ROWS):
                x_points = points_of(x_ND, 0, x_rows, n, DOT_ROWS)
                for way in range(0, WAYS, LANES):
                    sums = zeros(DOTS)
                    for i in range(first + way, last, WAYS):
                        sums = add_dots(sums, x_points, i, w_points, i)
                    if adds_ends:
                        x_end_points = points_in_steps(x_ends, n * WAYS, WAYS, DOT_ROWS)
                        w_end_points = points_in_steps(w_ends, e * WAYS, WAYS, UNITS)
                        sums = add_dots(sums, x_end_points, way, w_end_points, way)
                    store_block(sums, points_in_steps(ways, way, ROWS_OF_VECTOR * WAYS, DOTS), 0)
                for j in range(min(DOT_ROWS, N - n)):
                    for u in range(min(UNITS, E - e)):
                        total = sum_ways(ways, _dot(j, u) * WAYS)
                        y_NE[n + j, e + u] = total + (b_E[e + u] if first == 0 else y_NE[n + j, e + u])
    if rectified:
        for n in range(N):
            for e in range(E):
                y_NE[n, e] = np.float32(0) if y_NE[n, e] <= 0 else y_NE[n, e]


@inlined
def sum_scaled_numbers(x, D, first, last, rows, deltas, sums, start):
    """Write sum over i from first to last-1 of  deltas[i] · x[rows[i] :][:D]  to sums[start:], for any D."""
    if D >= LANES:
        for part in range(0, D, LANES):
            d = min(part, D - LANES)
            vector = broadcast(np.float32(0))
            for i in range(first, last):
                vector = multiply_add(broadcast(element(deltas, i)), load(x, element(rows, i) + d), vector)
            store(sums, start + d, vector)
        return
    for d in range(D):
        number = np.float32(0)
        for i in range(first, last):
            number = fused(element(deltas, i), element(x, element(rows, i) + d), number)
        store_number(sums, start + d, number)


@inlined
def _add_strip(dy, dy_rows, w, w_start, w_step, first, last, d, dx, dx_rows, N):
    """Add the terms first..last-1 to the sums of STRIP vectors of columns, from column d on."""
    for n in range(0, N, ROWS):
        points = points_of(dy, 0, dy_rows, n, ROWS)
        targets = points_of(dx, 0, dx_rows, n, ROWS)
        sums = zeros(STRIP_SUMS) if first == 0 else load_rows(targets, d, STRIP)
        k = w_start
        for e in range(first, last):
            sums = add_rows(sums, w, k, points, e)
            k += w_step
        store_block(sums, targets, d)


@inlined
def _add_all(dy_NE, w_ED, dx_ND):
    """Compute dx from all deltas, D at least a strip.

    A panel of weights is copied first: reading along rows is fast. Read down its columns in place, the panel would be
    evicted from the cache between two groups of examples (rows whose length is a multiple of 4 KiB share cache sets).
    """
    N, E = dy_NE.shape
    D = w_ED.shape[1]
    dy_rows = _row_offsets(N, E, ROWS)
    dx_rows = _row_offsets(N, D, ROWS)
    width = STRIP * LANES
    panel = np.empty(STREAMS * STRIPS * width, np.float32)
    whole = D - D % width
    for first in range(0, E, STREAMS):
        last = min(E, first + STREAMS)
        for start in range(0, whole, STRIPS * width):
            strips = min(STRIPS, (whole - start) // width)
            for e in range(first, last):
                for strip in range(strips):
                    source, target = e * D + start + strip * width, (strip * STREAMS + e - first) * width
                    for part in range(0, width, LANES):
                        store(panel, target + part, load(w_ED, source + part))
            for strip in range(strips):
                _add_strip(dy_NE, dy_rows, panel, strip * STREAMS * width, width, first, last,
                           start + strip * width, dx_ND, dx_rows, N)  # fmt: skip
    if whole < D:
        # Overlaps the last strip, and computes the same sums there.
        _add_strip(dy_NE, dy_rows, w_ED, D - width, D, 0, E, D - width, dx_ND, dx_rows, N)


def _add_listed_of(span):
    """Return the function that adds the listed terms of STREAMS units to the sums of span·LANES columns."""

    @inlined
    def add_listed(w, w_start, step, first, g, starts, units, deltas, dx_ND, d):
        N, D = dx_ND.shape
        points = points_in_steps(w, w_start, LANES, span)
        for n in range(N):
            targets = points_in_steps(dx_ND, n * D + d, LANES, span)
            sums = zeros(span) if g == 0 else load_block(targets, 0)
            for i in range(starts[n, g], starts[n, g + 1]):
                sums = add_scaled(sums, broadcast(element(deltas, i)), points, (element(units, i) - first) * step)
            store_block(sums, targets, 0)

    return add_listed


_add_listed, _add_many_listed = _add_listed_of(SPAN), _add_listed_of(WIDE_SPAN)
_add_even_listed = _add_listed_of(EVEN_SPAN)


@inlined
def _span_at(D, d):
    """Return the vectors of the span of columns at d. Without an even one, the last span overlaps the one before it."""
    if D % (EVEN_SPAN * LANES) == 0 and D <= STRETCH:
        return EVEN_SPAN
    return WIDE_SPAN if D - d > SPAN * LANES and D >= WIDE_SPAN * LANES else SPAN


@inlined
def _add_from_lists(w_ED, starts, units, deltas, dx_ND):
    """Compute dx from the listed deltas, D at least a wide span.

    If half of them are zero, 800 columns take 0.64 of the time of `_add_all`. The weights of STREAMS units in a span
    stay in the cache for all examples; where rows compete for a few sets, they are copied to a panel.
    """
    E, D = w_ED.shape
    copies = D % 256 == 0
    panel = np.empty(STREAMS * WIDE_SPAN * LANES, np.float32)
    d = 0
    while d < D:
        span = _span_at(D, d)
        width = span * LANES
        at = min(d, D - width)  # the last span may overlap the one before it, and computes the same sums there
        source, start, step, first = w_ED.reshape(-1), at, D, 0
        for g in range(starts.shape[1] - 1):
            if copies:
                first = g * STREAMS
                for e in range(first, min(E, first + STREAMS)):
                    for k in range(0, width, LANES):
                        store(panel, (e - first) * WIDE_SPAN * LANES + k, load(w_ED, e * D + at + k))
                source, start, step = panel, 0, WIDE_SPAN * LANES
            if span == EVEN_SPAN:
                _add_even_listed(source, start, step, first, g, starts, units, deltas, dx_ND, at)
            elif span == WIDE_SPAN:
                _add_many_listed(source, start, step, first, g, starts, units, deltas, dx_ND, at)
            else:
                _add_listed(source, start, step, first, g, starts, units, deltas, dx_ND, at)
        d += width


@kernel("void(float32[:,::1], float32[:,::1], float32[:,::1])")
def dense_backward_input(dy_NE, w_ED, dx_ND):
    """dx[n,d] = sum over e of  dy[n,e] · w[e,d], in the order of e. Overwrites `dx_ND`."""
    N, E = dy_NE.shape
    D = w_ED.shape[1]
    if D >= WIDE_SPAN * LANES:
        starts = np.empty((N, (E + STREAMS - 1) // STREAMS + 1), np.int64)
        units, deltas = np.empty(N * (E + LANES), np.int32), np.empty(N * (E + LANES), np.float32)
        units_E = np.arange(E).astype(np.int32)
        if list_by_example(dy_NE, STREAMS, units_E, starts, units, deltas) <= _MOST_LISTED * N * E:
            _add_from_lists(w_ED, starts, units, deltas, dx_ND)
            return
    if D >= STRIP * LANES:
        _add_all(dy_NE, w_ED, dx_ND)
        return
    w_rows = _row_offsets(E, D, 0)
    for n in range(N):
        sum_scaled_numbers(w_ED.reshape(-1), D, 0, E, w_rows, dy_NE[n], dx_ND, n * D)


def _sum_columns_of(span):
    """Return the function that sums span·LANES columns for all units; they begin at x_start in `x`, at d in `sums`."""
    join_vectors = join_vectors_of(span)

    @inlined
    def sum_columns(x, x_start, D, d, num_units, num_blocks, starts, rows, deltas, stack, sums):
        points = points_in_steps(x, x_start, LANES, span)
        for e in range(num_units):
            for b in range(num_blocks):
                first, last = element(starts, e * num_blocks + b), element(starts, e * num_blocks + b + 1)
                block = zeros(span)
                for i in range(first, last):
                    block = add_scaled(block, broadcast(element(deltas, i)), points, element(rows, i))
                join_vectors(block, b, b + 1 == num_blocks, stack, sums, e * D + d)

    return sum_columns


_sum_columns, _sum_many_columns = _sum_columns_of(SPAN), _sum_columns_of(WIDE_SPAN)
_sum_even_columns = _sum_columns_of(EVEN_SPAN)


@inlined
def panel_step(D, N, num_units):
    """Return the distance of rows in a panel for `sum_weights`, or 0 where none pays.

    Rows that are a multiple of 1 KiB long compete for a few sets of the first-level cache. Without a panel, the starts
    of N rows must be numbers of 32 bits.
    """
    pays = (D % 256 == 0 and num_units >= _LEAST_UNITS) or N * D >= 2**31
    return WIDE_SPAN * LANES if pays and D >= SPAN * LANES else 0


@inlined
def _copy_columns(x, D, d, width, panel):
    """Copy columns of all rows to the panel."""
    step = WIDE_SPAN * LANES
    for n in range(panel.size // step):
        for k in range(0, width, LANES):
            store(panel, n * step + k, load(x, n * D + d + k))


@inlined
def sum_weights(x, D, num_units, num_blocks, starts, rows, deltas, stack, sums, panel):
    """Write the gradients of the units' weights to `sums`; `list_deltas` has listed their deltas.

    The columns of x that a span covers stay in the cache for all units. A wide span reads the lists half as often: 784
    columns took 0.84 of the time, 9,216 took 0.65. The last span may overlap the one before it, and computes the same
    sums there; 512 columns take four even spans. A panel is memory for the columns of a span, with rows `panel_step`
    apart, as `list_deltas` must know; 512 columns took 0.85 of the time. Without one it is empty.
    """
    if SPAN * LANES <= D:
        d = 0
        while d < D:
            span = _span_at(D, d)
            width = span * LANES
            at = min(d, D - width)
            source, start = x, at
            if panel.size:
                _copy_columns(x, D, at, width, panel)
                source, start = panel, 0
            if span == EVEN_SPAN:
                _sum_even_columns(source, start, D, at, num_units, num_blocks, starts, rows, deltas, stack, sums)
            elif span == WIDE_SPAN:
                _sum_many_columns(source, start, D, at, num_units, num_blocks, starts, rows, deltas, stack, sums)
            else:
                _sum_columns(source, start, D, at, num_units, num_blocks, starts, rows, deltas, stack, sums)
            d += width
        return
    for e in range(num_units):
        for b in range(num_blocks):
            first, last = element(starts, e * num_blocks + b), element(starts, e * num_blocks + b + 1)
            sum_scaled_numbers(x, D, first, last, rows, deltas, sums, e * D)
            join_numbers(D, b, b + 1 == num_blocks, stack, sums, e * D)


@kernel("void(float32[:,::1], float32[:,::1], float32[:,::1], float32[::1])")
def dense_backward_weights(x_ND, dy_NE, dw_ED, db_E):
    """dw[e,d] = sum over n of  dy[n,e] · x[n,d];  db[e] = sum over n of  dy[n,e];  in the order of n. Overwrites both.

    Zeros of dy cost nothing; after ReLU about half are zero.
    """
    N, D = x_ND.shape
    E = dy_NE.shape[1]
    starts = np.empty(E + 1, np.int64)
    rows, deltas = np.empty(N * E + LANES, np.int32), np.empty(N * E + LANES, np.float32)
    stack = stack_for(1)
    list_deltas(dy_NE, N, E, D, 0, E, N, stack, starts, rows, deltas, db_E)
    sum_weights(x_ND.reshape(-1), D, E, 1, starts, rows, deltas, stack, dw_ED, np.empty(0, np.float32))
