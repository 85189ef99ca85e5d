"""Waiting without falling asleep, for a moment.

A process that sleeps is woken by another processor, which on a virtual machine takes as long as a tenth of a small
step, and comes back with cold caches. One that asks again and again is there at once, but takes its processor from
whoever needs it. So no more workers compute or spin than there are processors, and the coordinator does while one of
them waits. And who spins gives way to others: the coordinator, woken by the first worker that has finished, is let in
by that one.

Where other programs want the processors, who gives way may have to wait for milliseconds until it is let in again, and
whoever sleeps and is woken comes before them. So it is tried now and then which is faster.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")

# Out of so many runs, how many are made in the one way and in the other to see which is faster.
PERIOD_RUNS, TRIAL_RUNS = 256, 6
# What sleeping must take of the time of spinning to be chosen: less than this, or a disturbance could decide.
CLEARLY_LESS = 0.9

# Longer than a worker waits for its next command where steps are short, and than a coordinator then waits for an
# answer. Where they take longer, what a waking costs does not matter.
SPIN_SECONDS = 0.002


def spin(ask: Callable[[], Answer], seconds: float) -> Answer:
    """Ask until there is an answer, but no longer than a moment.

    Parameters
    ----------
    ask : returns soon, with something false if there is no answer yet; it gives way to others meanwhile.
    seconds : the moment.

    Returns
    -------
    What was answered at last.
    """
    end = time.monotonic() + seconds
    while not (answer := ask()) and time.monotonic() < end:
        pass
    return answer


class SpinChoice:
    """Chooses by trial whether processes that do the same again and again wait without sleeping.

    Attributes
    ----------
    spins : whether they shall in the next run.
    """

    def __init__(self) -> None:
        self._seconds: list[float] = []
        self._is_better = self.spins = True

    def learn(self, seconds: float) -> None:
        """Take into account how long the run took for which `spins` said so."""
        self._seconds.append(seconds)
        num_runs = len(self._seconds)
        if num_runs == 2 * TRIAL_RUNS:
            # Without the first of each: others still waited for it in the other way.
            spinning, sleeping = self._seconds[1:TRIAL_RUNS], self._seconds[TRIAL_RUNS + 1 :]
            self._is_better = statistics.median(sleeping) > CLEARLY_LESS * statistics.median(spinning)
        elif num_runs == PERIOD_RUNS:
            self._seconds.clear()
        if len(self._seconds) < TRIAL_RUNS:
            self.spins = True
        else:
            self.spins = self._is_better and num_runs >= 2 * TRIAL_RUNS
