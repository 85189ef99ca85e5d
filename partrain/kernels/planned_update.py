"""A member's part of the update in a step that workers make by themselves (kernels.ipc.step_ring).

Each member has its own pieces of the update. It writes the new parameters and moments beside the current ones, so the
gradient need not be proven to be finite before: if a new value is not finite, the step is refused, and nothing has
changed.

Shapes: N examples; T tiles; K numbers of a slot; U parameters; G groups of them, C coefficients of a group.
"""

from __future__ import annotations

import numpy as np

from partrain.kernels.compiler.flags import kernel
from partrain.kernels.update_claims import SLOTS

from .update_pieces import scratch_for, sum_slots, update_slots, update_units


@kernel("boolean(int64[:,::1], int64, int64, int64, float64[::1], int64, int64, float32[:,::1], float32[:,::1],"
        " float32[::1], float32[::1], float32[::1], float32[::1], float32[::1], float32[::1],"
        " float32[::1])")  # fmt: skip
def update_pieces_ahead(
    pieces, first, last, N, losses_N, tile, block, slots_TK, coefficients_GC, gradient_K, m_U, v_U, w_U, new_m_U,
    new_v_U, new_w_U
):  # fmt: skip
    """Compute the pieces `first` to `last` - 1 of an update.

    Parameters
    ----------
    pieces : all pieces, as for `update.update_parameters`; read.
    N : number of examples of the batch.
    losses_N : their losses; read.
    tile, block : numbers of examples per tile and per block.
    slots_TK : one row per tile; read.
    coefficients_GC : the coefficients of each group of parameters, in the order of its rule's loops; read.
    gradient_K : scratch.
    m_U, v_U, w_U : moments and parameters; read.
    new_m_U, new_v_U, new_w_U : the new ones; these pieces are written.

    Returns
    -------
    Whether all losses, new parameters and new second moments are finite.
    """
    for n in range(N):
        if not abs(losses_N[n]) < np.inf:
            return False
    scratch = scratch_for(pieces, N, block)
    finite_check = np.float32(0)
    for piece in range(first, last):
        row = pieces[piece]
        if row[0] == SLOTS:
            sum_slots(slots_TK, (N + tile - 1) // tile, block // tile, scratch[4], row[1], row[2], gradient_K)
            gradient = gradient_K[row[1] :]
            finite_check += update_slots(row, gradient, coefficients_GC, m_U, v_U, w_U, new_m_U, new_v_U, new_w_U)
        else:
            finite_check += update_units(
                row, N, block, coefficients_GC, scratch, m_U, v_U, w_U, new_m_U, new_v_U, new_w_U
            )
    return finite_check == 0
