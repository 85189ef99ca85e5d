"""Where the words are by which processes tell each other things in shared memory. Nothing here needs Numba."""

from __future__ import annotations

# Numbers a cache line: nobody is disturbed by what is written to lines that it does not look at.
LINE = 8

# Of the `calls` of an update, which helpers see (kernels.update): the number of the newest update and its examples, and
# behind them for each piece the update for which a helper has made it ready. A number is that of the step, and never 0.
CALL, CALL_EXAMPLES, READY = (LINE * k for k in range(3))


def calls_size(num_pieces: int) -> int:
    """Return how many int64 `calls` holds."""
    return READY + LINE * num_pieces
