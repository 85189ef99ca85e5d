"""Which workers compute at the same time, when there are more workers than processors."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence

# How many calls of `WorkerPool.run` a turn lasts. In the first call of a turn the caches are cold, the workers sleep,
# and the system may wake two of them on one processor: with turns of 4 calls, a step took 1.1 times as long as with 16.
TURN_RUNS = 8


class Turns:
    """Lets workers compute in turns, `num_at_once` of them at a time.

    A worker that shares its processor only slows the other one down: 8 workers on 2 processors, all at once, took
    1.5 times as long as 2.

    Parameters
    ----------
    workers : the names of all workers.
    num_at_once : the number of workers that compute at the same time.
    """

    def __init__(self, workers: Sequence[str], num_at_once: int) -> None:
        self._queue = deque(workers)
        self._num_at_once = num_at_once
        self._num_runs = 0

    def next(self, num_commands: int) -> list[str]:
        """Return the workers that take the first commands of the next run."""
        self._end_turn()
        self._num_runs += 1
        return list(itertools.islice(self._queue, min(num_commands, self._num_at_once)))

    def next_series(self) -> list[str]:
        """Return the workers that make the next series of steps; it is a turn of its own."""
        self._end_turn()
        self._num_runs = TURN_RUNS
        return list(itertools.islice(self._queue, self._num_at_once))

    def _end_turn(self) -> None:
        """Let other workers compute if the turn has ended."""
        if self._num_runs == TURN_RUNS:
            self._num_runs = 0
            self._queue.rotate(-self._num_at_once)

    @property
    def continues(self) -> bool:
        """Whether the same workers compute in the run after this one."""
        return self._num_runs < TURN_RUNS or self._num_at_once == len(self._queue)
