"""Sums the gradients of nodes of the tree of blocks, by several threads: what a rank sends to the others.

The sums are those of an update (kernels.update_pieces), but they are stored, one flat vector for each node.

Shapes: M nodes; N examples; D, E inputs, outputs of a dense layer; T tiles; K numbers of a slot; U parameters.
"""

from __future__ import annotations

import numpy as np

from partrain.kernels.compiler.flags import inlined, kernel
from partrain.kernels.ipc.atomics import atomic_add, atomic_load, atomic_store, float32_at
from partrain.kernels.ipc.signal_words import LINE
from partrain.kernels.update_claims import CLAIMS, DONE, GENERATION, NUM_EXAMPLES, SLOTS, claim_any, wait_until_done

from .delta_lists import list_deltas
from .dense import panel_step, sum_weights
from .update_pieces import scratch_for, sum_slots

NUM_NODES = NUM_EXAMPLES  # in the control words of sums


@inlined
def _sum_units(row, start, N, block, scratch, sums_U):
    """Write the gradients of a piece of a dense layer, summed over the examples start..start+N-1, to `sums_U`."""
    starts, rows, deltas, _, stack = scratch
    first, last, D, E = row[1], row[2], row[5], row[6]
    num_units, num_blocks = last - first, (N + block - 1) // block
    x = float32_at(row[3], (start + N) * D)[start * D :]
    dy = float32_at(row[4], (start + N) * E)[start * E :]
    row_step = panel_step(D, N, num_units)
    list_deltas(dy, N, E, row_step or D, first, last, block, stack, starts, rows, deltas, sums_U[row[8] + first :])
    panel, sums = np.empty(N * row_step, np.float32), sums_U[row[7] + first * D :]
    sum_weights(x, D, num_units, num_blocks, starts, rows, deltas, stack, sums, panel)


@kernel("void(int64[::1], int64, int64, int64[:,::1], int64[:,::1], int64, int64, float32[:,::1], float32[:,::1])")
def sum_nodes(control, thread, num_threads, pieces, nodes, tile, block, slots_TK, sums_MU):
    """Compute one thread's part of the sums that `begin_sums` announced; all threads call this.

    Parameters
    ----------
    control : int64, of length `control_size`; read and written.
    thread, num_threads : index of this thread, and the number of threads. Thread 0 returns when all sums are finished,
        the others when no piece remains.
    pieces : as for `update.update_parameters`; read.
    nodes : first example of each node, and the one after its last; the first ones, as many as were announced, are read.
    tile, block : numbers of examples per tile and per block.
    slots_TK : one row per tile; read.
    sums_MU : the sums; the parameters of the pieces are overwritten.
    """
    generation = atomic_load(control, GENERATION)
    num_pieces, num_nodes = len(pieces), control[NUM_NODES]
    most = 0
    for node in range(num_nodes):
        most = max(most, nodes[node, 1] - nodes[node, 0])
    scratch = scratch_for(pieces, most, block)
    size = num_nodes * num_pieces
    while True:
        place = claim_any(control, CLAIMS, generation, thread, num_threads, size)
        if place < 0:
            break
        node, row = place // num_pieces, pieces[place % num_pieces]
        first, N = nodes[node, 0], nodes[node, 1] - nodes[node, 0]
        sums_U = sums_MU[node]
        if row[0] == SLOTS:
            slots = slots_TK[first // tile :]
            sum_slots(slots, (N + tile - 1) // tile, block // tile, scratch[4], row[1], row[2], sums_U)
        else:
            _sum_units(row, first, N, block, scratch, sums_U)
        atomic_add(control, DONE, 1)
    if thread == 0:
        wait_until_done(control, size)


@kernel("void(int64[::1], int64, int64)")
def begin_sums(control, num_threads, num_nodes):
    """Announce the sums of the first `num_nodes` nodes; the previous ones must be finished."""
    generation = control[GENERATION] + 1
    control[NUM_NODES] = num_nodes
    control[DONE] = 0
    atomic_store(control, GENERATION, generation)
    for thread in range(num_threads):
        atomic_store(control, CLAIMS + 2 * LINE * thread, generation << 32)
