"""Layout of the shared-memory words that processes use to signal each other. Needs no Numba."""

from __future__ import annotations

# int64 numbers in a cache line. Words on a line of their own do not slow down processes that read other words.
LINE = 8

# Words of `help_requests` (kernels.update): the step of the newest update, never 0; its number of examples; and
# for each piece, on a line of its own, the update for which it is ready and its helper, counted from 1. A helper writes
# the line of a piece, the coordinator everything else.
HELP_REQUEST, REQUEST_EXAMPLES, READY = (LINE * k for k in range(3))
OWNER = READY + 1

# Adam's coefficients of a step, as `loops.adam_update` takes them.
NUM_COEFFICIENTS = 9


def help_requests_size(num_pieces: int) -> int:
    """Return the number of int64 in `help_requests`."""
    return coordinator_steps_at(num_pieces) + num_pieces


def current_buffers_at(num_pieces: int) -> int:
    """Return the index in `help_requests` of the pieces' current buffers, 0 or 1; the coordinator writes them."""
    return READY + LINE * num_pieces


def coordinator_steps_at(num_pieces: int) -> int:
    """Return the index in `help_requests` of the steps for which the coordinator has computed each piece itself."""
    return READY + LINE * num_pieces + num_pieces
