"""How long a worker may be silent before it counts as hung: by what such commands took so far, and generously."""

from __future__ import annotations

# A worker that has not said hello: it may have to compile the kernels, with all the others, on one processor.
START_UP_SECONDS = 300.0
# The least that is granted to a command: a machine that swaps, or serves somebody else, is slow for seconds.
LEAST_SECONDS = 30.0
# How many times as long as such commands took on average.
GENEROSITY = 100.0
# The weight of the newest measurement in the running mean.
WEIGHT = 0.1


class Patience:
    """The running mean of the seconds that an example takes, by operation, and what follows from it."""

    def __init__(self) -> None:
        self._mean_s: dict[int, float] = {}

    def learn(self, operation: int, num_examples: int, seconds: float) -> None:
        """Take into account that a worker took `seconds` for `num_examples`."""
        measured = seconds / max(1, num_examples)
        mean = self._mean_s.get(operation, measured)
        self._mean_s[operation] = mean + WEIGHT * (measured - mean)

    def limit(self, operation: int, num_examples: int) -> float:
        """Return after how many seconds of silence a worker with such a command counts as hung."""
        mean = self._mean_s.get(operation)
        if mean is None:
            return START_UP_SECONDS
        return max(LEAST_SECONDS, GENEROSITY * mean * num_examples)
