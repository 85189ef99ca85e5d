"""Lists of the deltas of a dense layer that are not zero: after ReLU about half of them are zero.

A list has two columns: the delta, and which row to multiply with it. Adding only these rows changes no sum: it begins
at 0, so it is never -0, and adding 0 leaves it as it is.

Shapes: N examples; D, E inputs, outputs.
"""

from __future__ import annotations

import numpy as np

from partrain.kernels.compiler.flags import inlined

from .block_tree import join_numbers
from .simd.blocks import load_block, points_in_steps, store_block
from .simd.compression import load_counts, nonzero_where_counted, num_selected, store_selected
from .simd.transposition import transposed
from .simd.vectors import LANES, add, add_count, broadcast, element, load, store, store_number


@inlined
def _sum_units(dy, N, E, e, block, stack, db, place):
    """Write the sums of units e..e+LANES-1 to db[place:]."""
    for start in range(0, N, block):
        end = min(N, start + block)
        sums = broadcast(np.float32(0))
        for n in range(start, end):
            sums = add(sums, load(dy, n * E + e))
        store(db, place, sums)
        join_numbers(LANES, start // block, end == N, stack, db, place)


@inlined
def _turn(dy, N, E, e, columns):
    """Copy the deltas of units e..e+LANES-1, those of a unit side by side."""
    whole = N - N % LANES
    for n in range(0, whole, LANES):
        square = load_block(points_in_steps(dy, n * E + e, E, LANES), 0)
        store_block(transposed(square), points_in_steps(columns, n, N, LANES), 0)
    for n in range(whole, N):
        for j in range(LANES):
            store_number(columns, j * N + n, element(dy, n * E + e + j))


@inlined
def _list_numbers(source, at, step, first, last, row_step, rows, deltas, count):
    """Append numbers first..last-1 of source[at + n·step] that are not zero to a list; return its new length."""
    for n in range(first, last):
        delta = element(source, at + n * step)
        store_number(rows, count, n * row_step)
        store_number(deltas, count, delta)
        count += delta != 0
    return count


@inlined
def list_deltas(dy, N, E, row_step, first, last, block, stack, starts, rows, deltas, db):
    """List the deltas of units first..last-1 that are not zero, and the starts of the rows to multiply them with.

    Those of unit e and block b, of `num_blocks`, are at starts[k]..starts[k+1]-1 of `rows` and `deltas`, in the order
    of n, with k = (e-first)·num_blocks + b; the row of example n starts at n·row_step, a number of 32 bits. `db` gets
    the units' sums. `rows` and `deltas` have at least N·(last-first) + LANES elements, `starts` one more than there are
    k.

    Listing LANES units at a time takes 0.4 of the time of one after the other, for the same sums.
    """
    count, k = 0, 0
    first_rows = load_counts((np.arange(LANES) * row_step).astype(np.int32), 0)
    columns = np.empty(LANES * N, np.float32)
    grouped = last - (last - first) % LANES
    for group in range(first, grouped, LANES):
        _sum_units(dy, N, E, group, block, stack, db, group - first)
        _turn(dy, N, E, group, columns)
        for j in range(LANES):
            for start in range(0, N, block):
                store_number(starts, k, count)
                end = min(N, start + block)
                whole = end - (end - start) % LANES
                for n in range(start, whole, LANES):
                    delta, row = load(columns, j * N + n), add_count(first_rows, n * row_step)
                    selected = nonzero_where_counted(delta, row)
                    store_selected(deltas, count, delta, selected)
                    store_selected(rows, count, row, selected)
                    count += num_selected(selected)
                count = _list_numbers(columns, j * N, 1, whole, end, row_step, rows, deltas, count)
                k += 1
    for e in range(grouped, last):
        for start in range(0, N, block):
            store_number(starts, k, count)
            end = min(N, start + block)
            bias = np.float32(0)
            for n in range(start, end):
                bias += element(dy, n * E + e)
            count = _list_numbers(dy, e, E, start, end, row_step, rows, deltas, count)
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
