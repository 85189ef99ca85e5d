"""Computes the pieces of an update: sums of slots, the largest factors, and the rules on gradients that are not stored.

Shapes: N examples; D, E inputs, outputs of a dense layer; T tiles; K numbers of a slot; U parameters.
"""

from __future__ import annotations

import numpy as np

from partrain.kernels.compiler.flags import inlined
from partrain.kernels.ipc.atomics import float32_at, int32_at
from partrain.kernels.loops_update import kept
from partrain.kernels.update_claims import BIAS_GROUP, GROUP, RULE, UNITS
from partrain.kernels.update_rules import SMALLEST_MOMENT, Rule

from .block_tree import SPAN, join_numbers, join_vectors, stack_for
from .delta_lists import list_deltas
from .dense import panel_step, sum_weights
from .simd.blocks import add_scaled, points_in_steps, zeros
from .simd.vectors import (
    LANES,
    add,
    broadcast,
    broadcast_count,
    divide,
    element,
    larger_magnitude,
    load,
    multiply,
    square_root,
    store,
    store_counts,
    store_number,
    subtract,
    sum_lanes,
    zero_below,
)

ADAM, SGD = int(Rule.ADAM), int(Rule.SGD)


@inlined
def magnitude(address, first, last):
    """Return the largest absolute value of numbers first..last-1, as the bits of a float32; NaN is the largest.

    The bits of numbers that are not negative, read as integers, have the order of the numbers.
    """
    bits = int32_at(address, last)
    whole = last - (last - first) % LANES
    of_lanes = broadcast_count(0)
    for i in range(first, whole, LANES):
        of_lanes = larger_magnitude(of_lanes, bits, i)
    found = np.empty(LANES, np.int32)
    store_counts(found, 0, of_lanes)
    largest = np.int32(0)
    for lane in range(LANES):
        largest = max(largest, found[lane])
    for i in range(whole, last):
        largest = max(largest, bits[i] & np.int32(0x7FFFFFFF))
    return largest


@inlined
def sum_slots(slots_TK, num_tiles, tiles_per_block, stack, first, last, gradient):
    """Sum the slots of the tiles as `reduction.GradientReduction` does; return whether all sums are finite.

    The sums of SPAN vectors stay in registers: twice as fast as adding whole slots one after the other.
    """
    K, span = slots_TK.shape[1], SPAN * LANES
    whole = last - (last - first) % span
    for k in range(first, whole, span):
        points = points_in_steps(slots_TK, k, LANES, SPAN)
        for start in range(0, num_tiles, tiles_per_block):
            end = min(num_tiles, start + tiles_per_block)
            sums = zeros(SPAN)
            for t in range(start, end):
                sums = add_scaled(sums, broadcast(np.float32(1)), points, t * K)  # the product with 1 is exact
            join_vectors(sums, start // tiles_per_block, end == num_tiles, stack, gradient, k)
    for start in range(0, num_tiles, tiles_per_block):
        end = min(num_tiles, start + tiles_per_block)
        for k in range(whole, last):
            total = np.float32(0)
            for t in range(start, end):
                total += element(slots_TK, t * K + k)
            store_number(gradient, k, total)
        join_numbers(last - whole, start // tiles_per_block, end == num_tiles, stack, gradient, whole)
    finite = True
    for k in range(first, last):
        finite &= abs(gradient[k]) < np.inf
    return finite


@inlined
def adam(gradient, start, count, coefficients, m, v, w, new_m, new_v, new_w):
    """Update parameters start..start+count-1 as `loops_update.adam_update` does.

    Returns 0, or NaN if a result is not finite. An infinite second moment would set the parameter's steps to 0 for
    ever. It makes `root` infinite, so the check adds `root` to the parameter: this costs no pass over the moments. The
    arrays of new values may be those of the old ones.
    """
    scale, step_size = element(coefficients, 0), element(coefficients, 1)
    beta1, rest1, beta2, rest2 = (
        element(coefficients, 2), element(coefficients, 3), element(coefficients, 4), element(coefficients, 5)
    )  # fmt: skip
    eps, decay, root_scale = element(coefficients, 6), element(coefficients, 7), element(coefficients, 8)
    whole = count - count % LANES
    zeros = broadcast(np.float32(0))
    for i in range(start, start + whole, LANES):
        g = multiply(load(gradient, i - start), broadcast(scale))
        next_m = add(multiply(broadcast(beta1), load(m, i)), multiply(broadcast(rest1), g))
        next_v = add(multiply(broadcast(beta2), load(v, i)), multiply(multiply(broadcast(rest2), g), g))
        next_m, next_v = zero_below(next_m, SMALLEST_MOMENT), zero_below(next_v, SMALLEST_MOMENT)
        store(new_m, i, next_m)
        store(new_v, i, next_v)
        root = add(multiply(square_root(next_v), broadcast(root_scale)), broadcast(eps))
        step = divide(multiply(broadcast(step_size), next_m), root)
        next_w = subtract(multiply(load(w, i), broadcast(decay)), step)
        store(new_w, i, next_w)
        finite = add(next_w, root)
        zeros = add(zeros, subtract(finite, finite))
    finite_check = sum_lanes(zeros)
    for i in range(start + whole, start + count):
        g = element(gradient, i - start) * scale
        m_i = kept(beta1 * element(m, i) + rest1 * g)
        v_i = kept(beta2 * element(v, i) + rest2 * g * g)
        store_number(new_m, i, m_i)
        store_number(new_v, i, v_i)
        root_i = np.sqrt(v_i) * root_scale + eps
        w_i = element(w, i) * decay - step_size * m_i / root_i
        store_number(new_w, i, w_i)
        finite_check += (w_i + root_i) - (w_i + root_i)
    return finite_check


@inlined
def _sgd(gradient, start, count, coefficients, m, w, new_m, new_w):
    """Update parameters start..start+count-1 as `loops_update.sgd_update` does; returns as `adam` does."""
    scale, lr, momentum = element(coefficients, 0), element(coefficients, 1), element(coefficients, 2)
    decay, of_gradient, of_velocity = element(coefficients, 3), element(coefficients, 4), element(coefficients, 5)
    whole = count - count % LANES
    zeros = broadcast(np.float32(0))
    for i in range(start, start + whole, LANES):
        old_w = load(w, i)
        g = add(multiply(load(gradient, i - start), broadcast(scale)), multiply(broadcast(decay), old_w))
        u = g
        if momentum != 0:
            u = zero_below(add(multiply(broadcast(momentum), load(m, i)), g), SMALLEST_MOMENT)
            store(new_m, i, u)
        step = add(multiply(broadcast(of_gradient), g), multiply(broadcast(of_velocity), u))
        next_w = subtract(old_w, multiply(broadcast(lr), step))
        store(new_w, i, next_w)
        zeros = add(zeros, subtract(next_w, next_w))
    finite_check = sum_lanes(zeros)
    for i in range(start + whole, start + count):
        g_i = element(gradient, i - start) * scale + decay * element(w, i)
        u_i = g_i
        if momentum != 0:
            u_i = kept(momentum * element(m, i) + g_i)
            store_number(new_m, i, u_i)
        w_i = element(w, i) - lr * (of_gradient * g_i + of_velocity * u_i)
        store_number(new_w, i, w_i)
        finite_check += w_i - w_i
    return finite_check


@inlined
def _average(gradient, start, count, coefficients, w, new_w):
    """Update averages start..start+count-1 as `loops_update.average_update` does; returns as `adam` does."""
    scale, momentum = element(coefficients, 0), element(coefficients, 1)
    finite_check = np.float32(0)
    for i in range(start, start + count):
        w_i = element(w, i)
        w_i = w_i + momentum * (element(gradient, i - start) * scale - w_i)
        store_number(new_w, i, w_i)
        finite_check += w_i - w_i
    return finite_check


@inlined
def apply_rule(rule, gradient, start, count, coefficients, m, v, w, new_m, new_v, new_w):
    """Update parameters start..start+count-1 by a rule; return 0, or NaN if a result is not finite."""
    if rule == ADAM:
        return adam(gradient, start, count, coefficients, m, v, w, new_m, new_v, new_w)
    if rule == SGD:
        return _sgd(gradient, start, count, coefficients, m, w, new_m, new_w)
    return _average(gradient, start, count, coefficients, w, new_w)


@inlined
def update_slots(row, gradient, coefficients_GC, m, v, w, new_m, new_v, new_w):
    """Update the parameters of a piece of slots; return 0, or NaN if a result is not finite.

    Parameters
    ----------
    gradient : starts with that of the first parameter.
    """
    coefficients, start, count = coefficients_GC[row[GROUP]], row[1], row[2] - row[1]
    return apply_rule(row[RULE], gradient, start, count, coefficients, m, v, w, new_m, new_v, new_w)


@inlined
def update_units(row, N, block, coefficients_GC, scratch, m, v, w, new_m, new_v, new_w):
    """Update the weights and biases of a piece of a dense layer; return 0, or NaN if a result is not finite."""
    starts, rows, deltas, sums, stack = scratch
    first, last, D, E, rule = row[1], row[2], row[5], row[6], row[RULE]
    of_weights, of_biases = coefficients_GC[row[GROUP]], coefficients_GC[row[BIAS_GROUP]]
    num_units, num_blocks = last - first, (N + block - 1) // block
    x = float32_at(row[3], N * D)
    dy = float32_at(row[4], N * E)
    row_step = panel_step(D, N, num_units)
    list_deltas(dy, N, E, row_step or D, first, last, block, stack, starts, rows, deltas, sums)
    finite_check = apply_rule(rule, sums, row[8] + first, num_units, of_biases, m, v, w, new_m, new_v, new_w)
    panel = np.empty(N * row_step, np.float32)
    sum_weights(x, D, num_units, num_blocks, starts, rows, deltas, stack, sums, panel)
    start, count = row[7] + first * D, num_units * D
    return finite_check + apply_rule(rule, sums, start, count, of_weights, m, v, w, new_m, new_v, new_w)


@inlined
def scratch_for(pieces, N, block):
    """Return arrays that are large enough for the lists of any piece's deltas, for its sums, and for their stack."""
    num_blocks = (N + block - 1) // block
    most, most_numbers = 0, 0
    for piece in range(len(pieces)):
        if pieces[piece, 0] == UNITS:
            num_units = pieces[piece, 2] - pieces[piece, 1]
            most, most_numbers = max(most, num_units), max(most_numbers, num_units * pieces[piece, 5])
    return (
        np.empty(num_blocks * most + 1, np.int64),
        np.empty(N * most + LANES, np.int32),
        np.empty(N * most + LANES, np.float32),
        np.empty(most_numbers, np.float32),
        stack_for(num_blocks),
    )
