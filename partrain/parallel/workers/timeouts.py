"""How long a worker may be silent before it counts as hung."""

from __future__ import annotations

# The limit for a worker that has not said hello. It may have to compile the kernels, and share one processor with all
# the others.
START_UP_SECONDS = 300.0
# The minimum for a command. A machine that swaps, or runs other programs, is slow for seconds.
MIN_SECONDS = 30.0
# The limit as a multiple of the average duration of such a command.
SAFETY_FACTOR = 100.0
# The weight of the newest measurement in the running mean.
WEIGHT = 0.1


class CommandTimeouts:
    """Derives the timeout of a command from how long such commands took so far.

    It keeps the running mean of the seconds per example, for each operation.
    """

    def __init__(self) -> None:
        self._mean_s: dict[int, float] = {}

    def record(self, operation: int, num_examples: int, seconds: float) -> None:
        """Record that a worker took `seconds` for `num_examples`."""
        measured = seconds / max(1, num_examples)
        mean = self._mean_s.get(operation, measured)
        self._mean_s[operation] = mean + WEIGHT * (measured - mean)

    def limit_s(self, operation: int, num_examples: int) -> float:
        """Return the silence, in seconds, after which a worker counts as hung."""
        mean = self._mean_s.get(operation)
        if mean is None:
            return START_UP_SECONDS
        return max(MIN_SECONDS, SAFETY_FACTOR * mean * num_examples)
