"""Spinning: a short wait without going to sleep.

To wake a sleeping process, one processor must interrupt another. On a virtual machine that costs up to a tenth of a
small step, and the process resumes with cold caches. A process that spins continues at once, but occupies its
processor. So the processes that compute or spin never outnumber the processors: the coordinator spins only while a
worker waits. A spinning process also yields its processor repeatedly: if two workers share a processor, the first one
that finishes makes room for the coordinator.

When other programs use the processors, a process that yields may wait for milliseconds until it runs again, while a
process that sleeps is given priority when it wakes. So `SpinPolicy` measures now and then which of the two is faster.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")

# In every PERIOD_RUNS runs, the first TRIAL_RUNS spin and the next TRIAL_RUNS sleep, to see which is faster.
PERIOD_RUNS, TRIAL_RUNS = 256, 6
# Sleeping is chosen if it takes less than this share of the time of spinning. Without a margin, noise would decide.
SLEEP_MARGIN = 0.9

# The longest time to spin. It exceeds the waits for commands and answers when steps are short. When steps are long, the
# cost of waking does not matter.
SPIN_SECONDS = 0.002


def spin(poll: Callable[[], Answer], seconds: float) -> Answer:
    """Call `poll` until it returns something true, for at most `seconds`; return its last result.

    Parameters
    ----------
    poll : returns within microseconds, and yields the processor meanwhile.
    """
    end = time.monotonic() + seconds
    while not (answer := poll()) and time.monotonic() < end:
        pass
    return answer


class SpinPolicy:
    """Decides by measurement whether processes spin or sleep during runs of the same kind.

    Attributes
    ----------
    spins : whether they spin in the next run.
    """

    def __init__(self) -> None:
        self._seconds: list[float] = []
        self._spinning_is_faster = self.spins = True

    def record(self, seconds: float) -> None:
        """Record the duration of a run that followed `spins`."""
        self._seconds.append(seconds)
        num_runs = len(self._seconds)
        if num_runs == 2 * TRIAL_RUNS:
            # Ignore the first run of each kind: during it, some processes still waited in the other way.
            spinning, sleeping = self._seconds[1:TRIAL_RUNS], self._seconds[TRIAL_RUNS + 1 :]
            self._spinning_is_faster = statistics.median(sleeping) > SLEEP_MARGIN * statistics.median(spinning)
        elif num_runs == PERIOD_RUNS:
            self._seconds.clear()
        if len(self._seconds) < TRIAL_RUNS:
            self.spins = True
        else:
            self.spins = self._spinning_is_faster and num_runs >= 2 * TRIAL_RUNS
