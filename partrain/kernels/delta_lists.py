"""Lists of the deltas of a dense layer that are not zero: after ReLU about half of them are zero.

A list has two columns: the delta, and which row to multiply with it. Adding only these rows changes no sum: it begins
at 0, so it is never -0, and adding 0 leaves it as it is.

Shapes: N examples; D, E inputs, outputs.
"""

from __future__ import annotations

import numpy as np

from partrain.kernels.block_tree import join_numbers
from partrain.kernels.compiler.flags import inlined
from partrain.kernels.simd.compression import load_counts, nonzero_where_counted, num_selected, store_selected
from partrain.kernels.simd.vectors import LANES, element, load, store_number


@inlined
def list_deltas(dy, N, E, D, first, last, block, stack, starts, rows, deltas, db):
    """List the deltas of units first..last-1 that are not zero, and the starts of the rows of x to multiply them with.

    Those of unit e and block b, of `num_blocks`, are at starts[k]..starts[k+1]-1 of `rows` and `deltas`, in the order
    of n, with k = (e-first)·num_blocks + b. `db` gets the units' sums. `rows` and `deltas` have at least
    N·(last-first) + 1 elements, `starts` one more than there are k.
    """
    count, k = 0, 0
    for e in range(first, last):
        for start in range(0, N, block):
            store_number(starts, k, count)
            end = min(N, start + block)
            bias = np.float32(0)
            for n in range(start, end):
                delta = element(dy, n * E + e)
                store_number(rows, count, n * D)
                store_number(deltas, count, delta)
                bias += delta
                count += delta != 0
            store_number(db, e - first, bias)
            join_numbers(1, start // block, end == N, stack, db, e - first)
            k += 1
    store_number(starts, k, count)


@inlined
def list_by_example(dy_NE, group, units_E, starts, units, deltas):
    """List the units of each example whose deltas are not zero; return how many entries there are.

    Those of example n, and of units g·group to (g+1)·group - 1, are at starts[n, g]..starts[n, g+1]-1.

    Parameters
    ----------
    group : a multiple of LANES.
    units_E : the numbers 0, 1, …; read.
    starts : (N, groups + 1); overwritten.
    units, deltas : the columns of the list; overwritten. N·(E + LANES) numbers.
    """
    N, E = dy_NE.shape
    groups, whole = starts.shape[1] - 1, E - E % LANES
    total = 0
    for n in range(N):
        count = n * (E + LANES)
        total -= count
        for g in range(groups):
            starts[n, g] = count
            first, last = g * group, min(E, (g + 1) * group)
            for e in range(first, min(last, whole), LANES):
                delta, unit = load(dy_NE, n * E + e), load_counts(units_E, e)
                selected = nonzero_where_counted(delta, unit)
                store_selected(deltas, count, delta, selected)
                store_selected(units, count, unit, selected)
                count += num_selected(selected)
            for e in range(max(first, min(last, whole)), last):
                last_delta = element(dy_NE, n * E + e)
                store_number(deltas, count, last_delta)
                store_number(units, count, e)
                count += last_delta != 0
        starts[n, groups] = count
        total += count
    return total
