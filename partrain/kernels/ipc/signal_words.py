"""Layout of the shared-memory words that processes use to signal each other. Needs no Numba."""

from __future__ import annotations

# int64 numbers in a cache line. Words on a line of their own do not slow down processes that read other words.
LINE = 8

# Words of an update's `calls` (kernels.update): the newest update, which is the number of its step and never 0; its
# number of examples; and for each piece, on a line of its own, the update for which it is ready and its helper, counted
# from 1. A helper writes the line of a piece, the coordinator everything else.
CALL, CALL_EXAMPLES, READY = (LINE * k for k in range(3))
OWNER = READY + 1

# Adam's coefficients of a step, as `loops.adam_update` takes them.
NUM_COEFFICIENTS = 9


def calls_size(num_pieces: int) -> int:
    """Return the number of int64 in `calls`."""
    return coordinator_steps_at(num_pieces) + num_pieces


def current_buffers_at(num_pieces: int) -> int:
    """Return the index in `calls` of the pieces' current buffers of moments, 0 or 1; the coordinator writes them."""
    return READY + LINE * num_pieces


def coordinator_steps_at(num_pieces: int) -> int:
    """Return the index in `calls` of the steps for which the coordinator has computed each piece itself."""
    return READY + LINE * num_pieces + num_pieces
