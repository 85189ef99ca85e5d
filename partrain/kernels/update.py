"""Updates the parameters from the results of a batch's tiles, by several threads, without storing
the dense layers' gradients.

The gradient of a dense layer is as large as the layer. Here it is never stored: a block of it is summed from the
layer's factors into the first-level cache, where the rule of the update, such as Adam, reads it. So it must be known
that the whole gradient is finite before any parameter is written. A bound proves it:

    |dw[e,d]| = |sum over n of  dy[n,e] · x[n,d]|  <=  N · max|dy| · max|x|

The work is cut into pieces by shapes alone. Any thread may compute a piece; the numbers and the order of their sums are
the same.

    first round     sums of the slots into the gradient, each checked; the largest factors
    second round    the rule of each group of parameters: on those of slots; on those of dense layers, unit by unit,
                    with their gradient

Shapes: N examples; D, E inputs, outputs of a dense layer; T tiles; K numbers of a slot; U parameters; G groups of them,
C coefficients of a group.
"""

from __future__ import annotations

import numpy as np

from partrain.kernels.compiler.flags import inlined, kernel
from partrain.kernels.ipc.atomics import atomic_add, atomic_load, atomic_max, atomic_store
from partrain.kernels.ipc.signal_words import LINE
from partrain.kernels.update_claims import (
    CLAIMS,
    DONE,
    GENERATION,
    NOT_FINITE_PARAMETERS,
    NOT_FINITE_SUMS,
    NUM_EXAMPLES,
    SLOTS,
    claim_any,
    wait_until_done,
)

from .block_tree import stack_for
from .update_pieces import magnitude, scratch_for, sum_slots, update_slots, update_units

# Results of `update_parameters`.
UPDATED, UNPROVEN, NOT_FINITE = 0, 1, 2

# Products up to this one are finite in float32, with room for the rounding of their sum.
LARGEST = 1e38


@inlined
def _is_proven(control, magnitudes, num_layers, N):
    """Return whether the sums of the slots are finite, and the bound proves it for the dense layers."""
    if atomic_load(control, NOT_FINITE_SUMS):
        return False
    bits = np.empty(2, np.int32)
    numbers = bits.view(np.float32)
    for layer in range(num_layers):
        place = magnitudes + 2 * LINE * layer
        bits[0], bits[1] = atomic_load(control, place), atomic_load(control, place + LINE)
        largest_x, largest_bias = np.float64(numbers[0]), np.float64(numbers[1]) * N
        if not (largest_bias < LARGEST and largest_x * largest_bias < LARGEST):  # false for NaN
            return False
    return True


@inlined
def _check_all(control, thread, num_threads, generation, checks, N, magnitudes, tile, block, slots_TK, gradient_K):
    """Compute pieces of the first round: sum the slots into the gradient, and find the largest factors."""
    stack = stack_for((N + block - 1) // block)
    while True:
        k = claim_any(control, CLAIMS, generation, thread, num_threads, len(checks))
        if k < 0:
            break
        row = checks[k]
        if row[0] == SLOTS:
            if not sum_slots(slots_TK, (N + tile - 1) // tile, block // tile, stack, row[1], row[2], gradient_K):
                atomic_store(control, NOT_FINITE_SUMS, 1)
        else:
            first, last = min(row[1], N) * row[4], min(row[2], N) * row[4]
            atomic_max(control, magnitudes + LINE * row[5], magnitude(row[3], first, last))
        atomic_add(control, DONE, 1)


@inlined
def _update_all(control, thread, num_threads, generation, pieces, N, block, coefficients_GC, gradient_K, m_U, v_U, w_U):
    """Compute pieces of the second round: update the parameters, those of dense layers unit by unit."""
    scratch = scratch_for(pieces, N, block)
    while True:
        piece = claim_any(control, CLAIMS + LINE, generation, thread, num_threads, len(pieces))
        if piece < 0:
            break
        row = pieces[piece]
        if row[0] == SLOTS:
            gradient = gradient_K[row[1] :]
            finite_check = update_slots(row, gradient, coefficients_GC, m_U, v_U, w_U, m_U, v_U, w_U)
        else:
            finite_check = update_units(row, N, block, coefficients_GC, scratch, m_U, v_U, w_U, m_U, v_U, w_U)
        if finite_check != 0:
            atomic_store(control, NOT_FINITE_PARAMETERS, 1)
        atomic_add(control, DONE, 1)


@kernel("int64(int64[::1], int64, int64, int64[:,::1], int64[:,::1], int64, int64, int64, float32[:,::1],"
        " float32[:,::1], float32[::1], float32[::1], float32[::1], float32[::1])")  # fmt: skip
def update_parameters(
    control, thread, num_threads, checks, pieces, num_layers, tile, block, slots_TK, coefficients_GC, gradient_K, m_U,
    v_U, w_U
):  # fmt: skip
    """Compute one thread's part of the update that `begin_update` announced; all threads call this.

    Parameters
    ----------
    control : int64, of length `control_size`; read and written.
    thread, num_threads : index of this thread, and the number of threads. Thread 0 returns when the update is finished,
        the others when no piece remains.
    checks, pieces : the pieces of the first and of the second round, one row per piece; read.
    num_layers : number of dense layers.
    tile, block : numbers of examples per tile and per block.
    slots_TK : one row per tile; read.
    coefficients_GC : the coefficients of each group of parameters, in the order of its rule's loops; read.
    gradient_K : overwritten with the sums of the slots.
    m_U, v_U, w_U : moments and parameters; updated.

    Returns
    -------
    UPDATED; UNPROVEN: nothing was updated, because the bound does not prove that the gradient is finite; NOT_FINITE:
    all parameters were updated, and one of them or of the second moments is not finite.
    """
    generation = atomic_load(control, GENERATION)
    N = control[NUM_EXAMPLES]
    magnitudes = CLAIMS + 2 * LINE * num_threads
    num_checks, num_pieces = len(checks), len(pieces)
    done_before = (generation - 1) * (num_checks + num_pieces)
    _check_all(control, thread, num_threads, generation, checks, N, magnitudes, tile, block, slots_TK, gradient_K)
    wait_until_done(control, done_before + num_checks)
    if not _is_proven(control, magnitudes, num_layers, N):
        if thread == 0:
            atomic_add(control, DONE, num_pieces)
        return UNPROVEN
    _update_all(control, thread, num_threads, generation, pieces, N, block, coefficients_GC, gradient_K, m_U, v_U, w_U)
    if thread != 0:
        return UPDATED
    wait_until_done(control, done_before + num_checks + num_pieces)
    return NOT_FINITE if atomic_load(control, NOT_FINITE_PARAMETERS) else UPDATED


@kernel("void(int64[::1], int64, int64, int64)")
def begin_update(control, num_threads, num_layers, num_examples):
    """Announce an update with the gradients of `num_examples`; the previous update must be finished."""
    generation = control[GENERATION] + 1
    control[NUM_EXAMPLES] = num_examples
    control[NOT_FINITE_SUMS] = control[NOT_FINITE_PARAMETERS] = 0
    for layer in range(2 * num_layers):
        control[CLAIMS + 2 * LINE * num_threads + LINE * layer] = 0
    atomic_store(control, GENERATION, generation)
    for thread in range(2 * num_threads):
        atomic_store(control, CLAIMS + LINE * thread, generation << 32)
