"""Where the words are by which processes tell each other things in shared memory. Nothing here needs Numba."""

from __future__ import annotations

# Numbers a cache line: nobody is disturbed by what is written to lines that it does not look at.
LINE = 8

# Of the `calls` of an update, which helpers see (kernels.update): the number of the newest update and its examples, and
# behind them, for each piece, what helpers write: for which update it is ready, and whose piece it is, counted from 1.
# The number of an update is that of the step, and never 0.
CALL, CALL_EXAMPLES, READY = (LINE * k for k in range(3))
OWNER = READY + 1

# Adam's coefficients of a step, as `loops.adam_update` takes them.
NUM_COEFFICIENTS = 9


def calls_size(num_pieces: int) -> int:
    """Return how many int64 `calls` holds."""
    return homes_at(num_pieces) + 2 * num_pieces


def homes_at(num_pieces: int) -> int:
    """Return where begins what the coordinator writes.

    For each piece, which of two places is the home of its moments; and then for each, in which update it has been
    computed by the coordinator.
    """
    return READY + LINE * num_pieces
