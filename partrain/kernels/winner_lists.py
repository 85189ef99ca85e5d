"""Lists of winners: the outputs of a convolution, after ReLU and pooling, whose gradient is not zero.

A list has three columns: the position p·Q + q in the output before pooling, where the position's patch starts in the
input, and the gradient. Its entries are ordered by filter, and then by window.

Shapes: F filters; I·J windows, with channels last; `num` of them are listed at once.
"""

from __future__ import annotations

import numpy as np

from partrain.kernels.compiler.flags import inlined

from .simd.compression import load_counts, nonzero_where_counted, num_selected, store_selected
from .simd.transposition import transpose
from .simd.vectors import LANES, element, load, store_number

# Of a window whose output has no gradient, because the ReLU has cut it off.
_NO_WINNER = -1


@inlined
def _mark(winners, pooled, rectified, start, size, marked):
    """Copy the positions of `size` winners; those whose output is not positive become _NO_WINNER."""
    for i in range(size):
        cut = rectified and element(pooled, start + i) <= 0
        store_number(marked, i, _NO_WINNER if cut else element(winners, start + i))


@inlined
def list_winners(
    d,
    d_start,
    place_step,
    filter_step,
    pooled,
    rectified,
    winners,
    start,
    num,
    F,
    patches,
    by_place,
    by_filter,
    d_by_filter,
    starts,
    places,
    offsets,
    deltas,
):
    """List the winners of `num` windows.

    Parameters
    ----------
    d : gradient; window t, filter f is at d_start + t·place_step + f·filter_step. One of the steps is 1.
    pooled, winners : output and position of window t, filter f, at start + t·F + f; read. With `rectified`, an output
        that is not positive has no gradient.
    patches : where the patch of each position starts.
    by_place, by_filter, d_by_filter : scratch, F·num numbers.
    starts : the entries of filter f are starts[f] to starts[f+1] - 1; overwritten.
    places, offsets, deltas : the columns of the list; overwritten. LANES longer than F·num.
    """
    _mark(winners, pooled, rectified, start, num * F, by_place)
    transpose(by_place.view(np.float32), 0, num, F, by_filter.view(np.float32), 0, num)  # copies the bits
    source, source_start, source_step = d.reshape(-1), d_start, filter_step
    if place_step != 1:
        transpose(d, d_start, num, F, d_by_filter, 0, num)
        source, source_start, source_step = d_by_filter, 0, num
    count, whole = 0, num - num % LANES
    for f in range(F):
        starts[f] = count
        at = source_start + f * source_step
        for t in range(0, whole, LANES):
            delta, place = load(source, at + t), load_counts(by_filter, f * num + t)
            selected = nonzero_where_counted(delta, place)
            store_selected(deltas, count, delta, selected)
            store_selected(places, count, place, selected)
            count += num_selected(selected)
        for t in range(whole, num):
            last_delta, last_place = element(source, at + t), element(by_filter, f * num + t)
            store_number(deltas, count, last_delta)
            store_number(places, count, last_place)
            count += (last_delta != 0) & (last_place >= 0)
    starts[F] = count
    for i in range(count):
        store_number(offsets, i, element(patches, element(places, i)))


@inlined
def sort_by_place(starts, F, places, place_starts, filter_step, deltas, sorted_filters, sorted_deltas):
    """Sort the entries by position (counting sort), and by filter within a position."""
    for t in range(place_starts.size):
        place_starts[t] = 0
    for i in range(starts[F]):
        t = element(places, i)
        store_number(place_starts, t + 2, element(place_starts, t + 2) + 1)
    for t in range(2, place_starts.size):
        place_starts[t] += place_starts[t - 1]
    for f in range(F):
        for i in range(starts[f], starts[f + 1]):
            t = element(places, i)
            at = element(place_starts, t + 1)
            store_number(place_starts, t + 1, at + 1)
            store_number(sorted_filters, at, f * filter_step)
            store_number(sorted_deltas, at, element(deltas, i))
