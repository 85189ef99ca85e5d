"""From the results of a batch's tiles to new parameters, by several threads, without a gradient in between.

The gradient of a dense layer is as large as the layer. Here it is never written: a block of it is summed from the
layer's factors into the first-level cache and goes into Adam from there. So before anything is written it must be
known that the whole gradient is finite. A bound proves it:

    |dw[e,d]| = |sum over n of  dy[n,e] · x[n,d]|  <=  N · max|dy| · max|x|

Work comes in pieces that are cut from shapes alone. Which thread takes a piece is chance; what is computed in it, and
in which order, is not. Threads claim pieces by counters: each has a row of its own, and then helps with the others'.

    first round     sums of the slots into the gradient, checked one by one; largest factors
    second round    Adam on the parameters of slots; gradient and Adam, unit by unit, of dense layers

Other processes that are idle may help: `update_units_ahead` makes pieces of the second round, from the same parameters
and moments, and writes what comes of them beside these, into memory that all share. Nobody waits for a helper, and
nothing is lost with one: a piece that is not ready when nothing else is left to do is computed once more. Each helper
has pieces of its own, and says of each for which update it is ready; so one who comes late, with the numbers of an
earlier update, is passed over. Of what is ready only the parameters are copied. The moments have two places, of which
one is a piece's *home*: a helper writes to the other, and when its work is taken, that becomes the home. So the moments
of a piece stay in the cache of its helper, and whatever a late one writes, no home is touched by it.

Shapes: N examples; D, E a dense layer's inputs, outputs; T tiles; K numbers of a slot, U parameters.
"""

from __future__ import annotations

import numba
import numpy as np

from partrain.kernels.compiler.flags import inlined, kernel
from partrain.kernels.dense import SPAN, list_deltas, sum_scaled_numbers, sum_scaled_rows
from partrain.kernels.ipc.atomics import (
    atomic_add,
    atomic_load,
    atomic_max,
    atomic_store,
    compare_exchange,
    float32_pointer,
    int32_pointer,
    yield_processor,
)
from partrain.kernels.ipc.signal_words import CALL, CALL_EXAMPLES, LINE, OWNER, READY
from partrain.kernels.simd.vectors import (
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
)

# Places in `control`, which threads share; each on a cache line of its own.
GENERATION, NUM_EXAMPLES, DONE, NOT_FINITE_SUMS, NOT_FINITE_PARAMETERS, CLAIMS = (LINE * k for k in range(6))
# Behind them: for each thread the claims of two rounds, and for each dense layer its largest input and delta.

# What `update_parameters` returns.
UPDATED, UNPROVEN, NOT_FINITE = 0, 1, 2

# Columns of `checks` and `pieces`: (kind, first, last, …), see parallel.update.parameter_update.
SLOTS, FACTORS, UNITS = 0, 1, 2
NUM_COLUMNS = 10

# Products up to here are finite in float32, with room for the rounding of their sum.
LARGEST = 1e38
SPINS = 2000


def control_size(num_threads: int, num_layers: int) -> int:
    """Return how many int64 `control` holds."""
    return CLAIMS + LINE * (2 * num_threads + 2 * num_layers)


@inlined
def _claim(control, claims, generation, size):
    """Return a number below `size` that no other thread gets in this generation; -1 where none is left."""
    while True:
        seen = atomic_load(control, claims)
        place = seen & 0xFFFFFFFF
        if seen >> 32 != generation or place >= size:
            return -1
        if compare_exchange(control, claims, seen, seen + 1):
            return place


@inlined
def _claim_any(control, claims, generation, thread, num_threads, size):
    """Return a piece below `size` that no other thread gets, of this one's share or else of another's; -1: none is."""
    for turn in range(num_threads):
        share = (thread + turn) % num_threads
        begin, end = share * size // num_threads, (share + 1) * size // num_threads
        k = _claim(control, claims + 2 * LINE * share, generation, end - begin)
        if k >= 0:
            return begin + k
    return -1


@inlined
def _is_ready(calls, piece, step):
    return abs(atomic_load(calls, READY + LINE * piece)) == step


@inlined
def _choose(pieces, left, calls, step):
    """Return a piece that is left: one that is ready or has no helper, else the last of a helper who is not at work.

    Returns
    -------
    If all helpers are at work, the last one that is left; -1: none is left.
    """
    at_work = 0  # helpers that have made a piece ready, as bits: those that have no bit of their own share the last
    for piece in range(len(pieces)):
        ready = _is_ready(calls, piece, step)
        if left[piece] and (ready or pieces[piece, 0] == SLOTS):
            return piece
        if ready:
            at_work |= 1 << min(calls[OWNER + LINE * piece], 62)
    last = -1
    for piece in range(len(pieces) - 1, -1, -1):
        if left[piece]:
            if not at_work >> min(calls[OWNER + LINE * piece], 62) & 1:
                return piece
            last = max(last, piece)
    return last


@inlined
def _wait_until_done(control, count):
    """Wait until `count` pieces have been done since the beginning: by threads that are at work already."""
    spins = 0
    while atomic_load(control, DONE) < count:
        spins += 1
        if spins > SPINS:
            yield_processor()


@inlined
def _magnitude(address, first, last):
    """Return the largest of the numbers without their signs, as the bits of a float32; NaN is above all.

    As integers, the bits of numbers that are not negative have the same order.
    """
    bits = numba.carray(int32_pointer(address), (last,))
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
def _sum_slots(slots_TK, num_tiles, first, last, gradient):
    """Sum the slots, in their order, as `loops.sum_slots` does; return whether all sums are finite."""
    for k in range(first, last):
        gradient[k] = 0
    for t in range(num_tiles):
        for k in range(first, last):
            gradient[k] += slots_TK[t, k]
    finite = True
    for k in range(first, last):
        finite &= abs(gradient[k]) < np.inf
    return finite


@inlined
def _adam(gradient, start, count, coefficients, m, v, w, new_m, new_v, new_w):
    """Do as `loops.adam_update` does to parameters start..start+count-1; return 0, or NaN if one is not finite.

    The new values may go where the old ones are.
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
        store(new_m, i, next_m)
        store(new_v, i, next_v)
        root = add(multiply(square_root(next_v), broadcast(root_scale)), broadcast(eps))
        step = divide(multiply(broadcast(step_size), next_m), root)
        next_w = subtract(multiply(load(w, i), broadcast(decay)), step)
        store(new_w, i, next_w)
        zeros = add(zeros, subtract(next_w, next_w))
    zero = sum_lanes(zeros)
    for i in range(start + whole, start + count):
        g = element(gradient, i - start) * scale
        m_i = beta1 * element(m, i) + rest1 * g
        v_i = beta2 * element(v, i) + rest2 * g * g
        store_number(new_m, i, m_i)
        store_number(new_v, i, v_i)
        w_i = element(w, i) * decay - step_size * m_i / (np.sqrt(v_i) * root_scale + eps)
        store_number(new_w, i, w_i)
        zero += w_i - w_i
    return zero


@inlined
def _sum_weights(x, D, num_units, starts, rows, deltas, sums):
    """Write the gradients of the weights of units, whose deltas `list_deltas` listed, to `sums`."""
    span = SPAN * LANES
    if span <= D:
        for part in range(0, D, span):
            d = min(part, D - span)  # the last one overlaps, and finds the same sums there
            for e in range(num_units):
                first, last = element(starts, e), element(starts, e + 1)
                sum_scaled_rows(x, d, first, last, rows, deltas, sums, e * D + d)
    else:
        for e in range(num_units):
            first, last = element(starts, e), element(starts, e + 1)
            sum_scaled_numbers(x, D, first, last, rows, deltas, sums, e * D)


@inlined
def _update_units(row, N, coefficients, scratch, m, v, w, new_m, new_v, new_w):
    """Update the weights and biases of a piece of a dense layer; return as `_adam` does."""
    starts, rows, deltas, sums = scratch
    first, last, D, E = row[1], row[2], row[5], row[6]
    num_units = last - first
    x = numba.carray(float32_pointer(row[3]), (N * D,))
    dy = numba.carray(float32_pointer(row[4]), (N * E,))
    list_deltas(dy, N, E, D, first, last, starts, rows, deltas, sums)
    zero = _adam(sums, row[8] + first, num_units, coefficients, m, v, w, new_m, new_v, new_w)
    _sum_weights(x, D, num_units, starts, rows, deltas, sums)
    return zero + _adam(sums, row[7] + first * D, num_units * D, coefficients, m, v, w, new_m, new_v, new_w)


@inlined
def _copy(source, target, first, size):
    whole = size - size % LANES
    for i in range(first, first + whole, LANES):
        store(target, i, load(source, i))
    for i in range(first + whole, first + size):
        store_number(target, i, element(source, i))


@inlined
def _take_units(row, next_U, w_U):
    """Copy the parameters of a piece that a helper has made."""
    num_units, D = row[2] - row[1], row[5]
    _copy(next_U, w_U, row[8] + row[1], num_units)
    _copy(next_U, w_U, row[7] + row[1] * D, num_units * D)


@inlined
def _scratch(pieces, N):
    """Return room for the lists of any piece's deltas, and for its sums."""
    most, most_numbers = 0, 0
    for piece in range(len(pieces)):
        if pieces[piece, 0] == UNITS:
            num_units = pieces[piece, 2] - pieces[piece, 1]
            most, most_numbers = max(most, num_units), max(most_numbers, num_units * pieces[piece, 5])
    return (
        np.empty(most + 1, np.int64),
        np.empty(N * most + 1, np.int64),
        np.empty(N * most + 1, np.float32),
        np.empty(most_numbers, np.float32),
    )


@inlined
def _is_proven(control, magnitudes, num_layers, N):
    """Return whether all gradients are finite, by the sums of slots and the bound on dense layers."""
    if atomic_load(control, NOT_FINITE_SUMS):
        return False
    bits = np.empty(2, np.int32)
    numbers = bits.view(np.float32)
    for layer in range(num_layers):
        place = magnitudes + 2 * LINE * layer
        bits[0], bits[1] = atomic_load(control, place), atomic_load(control, place + LINE)
        largest_x, largest_bias = np.float64(numbers[0]), np.float64(numbers[1]) * N
        if not (largest_bias < LARGEST and largest_x * largest_bias < LARGEST):  # so that NaN proves nothing
            return False
    return True


@inlined
def _check_all(control, thread, num_threads, generation, checks, N, magnitudes, tile, slots_TK, gradient_K):
    """Take part in the first round: sum the slots into the gradient, and find the largest factors."""
    while True:
        k = _claim_any(control, CLAIMS, generation, thread, num_threads, len(checks))
        if k < 0:
            break
        row = checks[k]
        if row[0] == SLOTS:
            if not _sum_slots(slots_TK, (N + tile - 1) // tile, row[1], row[2], gradient_K):
                atomic_store(control, NOT_FINITE_SUMS, 1)
        else:
            first, last = min(row[1], N) * row[4], min(row[2], N) * row[4]
            atomic_max(control, magnitudes + LINE * row[5], _magnitude(row[3], first, last))
        atomic_add(control, DONE, 1)


@inlined
def _update_all(control, thread, num_threads, generation, pieces, N, coefficients, gradient_K, calls, next_U,
                m_HU, v_HU, w_U):  # fmt: skip
    """Take part in the second round: update the parameters, those of dense layers unit by unit."""
    scratch = _scratch(pieces, N)
    helped, homes = len(calls) > 0, READY + LINE * len(pieces)
    step = calls[CALL] if helped else 0
    left = np.ones(len(pieces), np.bool_)
    while True:
        if helped:
            piece = _choose(pieces, left, calls, step)
        else:
            piece = _claim_any(control, CLAIMS + LINE, generation, thread, num_threads, len(pieces))
        if piece < 0:
            break
        left[piece] = False
        row, zero = pieces[piece], np.float32(0)
        home = calls[homes + piece] if helped else 0
        m, v = m_HU[home], v_HU[home]
        if row[0] == SLOTS:
            zero = _adam(gradient_K[row[1] :], row[1], row[2] - row[1], coefficients, m, v, w_U, m, v, w_U)
        elif helped and _is_ready(calls, piece, step):
            _take_units(row, next_U, w_U)
            calls[homes + piece] = 1 - home
            if calls[READY + LINE * piece] < 0:
                zero = np.float32(np.nan)
        else:
            if helped:
                atomic_store(calls, homes + len(pieces) + piece, step)
            zero = _update_units(row, N, coefficients, scratch, m, v, w_U, m, v, w_U)
        if zero != 0:
            atomic_store(control, NOT_FINITE_PARAMETERS, 1)
        atomic_add(control, DONE, 1)


@kernel("int64(int64[::1], int64, int64, int64[:,::1], int64[:,::1], int64, int64, float32[:,::1], float32[::1],"
        " float32[::1], int64[::1], float32[::1], float32[:,::1], float32[:,::1], float32[::1])")  # fmt: skip
def update_parameters(
    control, thread, num_threads, checks, pieces, num_layers, tile, slots_TK, coefficients, gradient_K, calls,
    next_U, m_HU, v_HU, w_U
):  # fmt: skip
    """Take part in a step that `begin_update` announced; all threads call this.

    Parameters
    ----------
    control : of `control_size`; read and written.
    thread : this one's number, below `num_threads`; 0 returns when all is done, the others when nothing is left.
    checks, pieces : the work of both rounds, a row each; read.
    num_layers : dense layers.
    tile : examples a tile.
    slots_TK : a row for each tile; read.
    coefficients : those of `loops.adam_update`, in its order; read.
    gradient_K : overwritten with the sums of the slots.
    calls, next_U : what helpers have made ready, and which of two places of the moments is whose home; read, and the
        homes written. Both are empty where nobody helps; where somebody does, there is one thread.
    m_HU, v_HU, w_U : moments, in two places with helpers and else in one, and parameters; updated.

    Returns
    -------
    UPDATED; UNPROVEN: nothing was updated, since the gradient could not be seen to be finite; NOT_FINITE: all was
    updated, and a parameter is not finite.
    """
    generation = atomic_load(control, GENERATION)
    N = control[NUM_EXAMPLES]
    magnitudes = CLAIMS + 2 * LINE * num_threads
    num_checks, num_pieces = len(checks), len(pieces)
    done_before = (generation - 1) * (num_checks + num_pieces)
    _check_all(control, thread, num_threads, generation, checks, N, magnitudes, tile, slots_TK, gradient_K)
    _wait_until_done(control, done_before + num_checks)
    if not _is_proven(control, magnitudes, num_layers, N):
        if thread == 0:
            atomic_add(control, DONE, num_pieces)
        return UNPROVEN
    _update_all(control, thread, num_threads, generation, pieces, N, coefficients, gradient_K, calls, next_U,
                m_HU, v_HU, w_U)  # fmt: skip
    if thread != 0:
        return UPDATED
    _wait_until_done(control, done_before + num_checks + num_pieces)
    return NOT_FINITE if atomic_load(control, NOT_FINITE_PARAMETERS) else UPDATED


@kernel("void(int64[::1], int64, int64, int64)")
def begin_update(control, num_threads, num_layers, num_examples):
    """Announce the next step, of `num_examples`, to `update_parameters`; all threads have done with the last one."""
    generation = control[GENERATION] + 1
    control[NUM_EXAMPLES] = num_examples
    control[NOT_FINITE_SUMS] = control[NOT_FINITE_PARAMETERS] = 0
    for layer in range(2 * num_layers):
        control[CLAIMS + 2 * LINE * num_threads + LINE * layer] = 0
    atomic_store(control, GENERATION, generation)
    for thread in range(2 * num_threads):
        atomic_store(control, CLAIMS + LINE * thread, generation << 32)


@kernel("void(int64[::1], int64, int64)")
def call_helpers(calls, step, num_examples):
    """Tell helpers that the update of `step` begins: all its factors are there."""
    calls[CALL_EXAMPLES] = num_examples
    atomic_store(calls, CALL, step)


@kernel("void(int64[::1], int64, int64[:,::1], int64, int64, float32[::1], float32[::1], float32[:,::1],"
        " float32[:,::1], float32[::1])")  # fmt: skip
def update_units_ahead(calls, step, pieces, helper, num_helpers, coefficients, next_U, m_HU, v_HU, w_U):
    """Make a helper's own pieces, while the update of `step` is the newest.

    Parameters
    ----------
    calls : of `signal_words.calls_size`; read, and written where it says that pieces are ready: the step, or its
        negative if a parameter is not finite.
    step : which update was called for.
    pieces : those of `update_parameters`, with this process's addresses; read.
    helper, num_helpers : of the rows of `pieces`, every num_helpers-th is its own, from number `helper` on.
    coefficients, w_U : those of `update_parameters`; read.
    next_U : the new parameters; a helper writes its own pieces of it alone.
    m_HU, v_HU : the moments in two places; a piece is read from its home, and written to the other place.
    """
    N = calls[CALL_EXAMPLES]
    homes = READY + LINE * len(pieces)
    scratch = _scratch(pieces, N)
    for piece in range(helper, len(pieces), num_helpers):
        row = pieces[piece]
        if row[0] != UNITS:
            continue
        if atomic_load(calls, CALL) != step:
            break
        if atomic_load(calls, homes + len(pieces) + piece) == step:  # nobody will take it
            continue
        home = calls[homes + piece]
        other = 1 - home
        zero = _update_units(row, N, coefficients, scratch, m_HU[home], v_HU[home], w_U, m_HU[other], v_HU[other],
                             next_U)  # fmt: skip
        atomic_store(calls, READY + LINE * piece, step if zero == 0 else -step)
