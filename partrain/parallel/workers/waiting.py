"""Spinning: waiting for a moment without going to sleep.

Waking a sleeping process takes another processor; on a virtual machine that costs as much as a tenth of a small step,
and the process comes back with cold caches. A process that spins continues at once, but occupies its processor. So at
most as many processes compute or spin as there are processors: the coordinator spins only while a worker waits. And a
spinning process yields the processor again and again: if two workers share one, the first that finishes lets the
coordinator in.

When other programs use the processors, a process that yields may wait for milliseconds until it runs again, while a
process that sleeps is given priority when it wakes. So `SpinPolicy` measures now and then which of the two is faster.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")

# Every PERIOD_RUNS runs, TRIAL_RUNS are made spinning and as many sleeping, to see which is faster.
PERIOD_RUNS, TRIAL_RUNS = 256, 6
# Sleeping is chosen if it takes less than this share of the time of spinning. Without a margin, noise would decide.
SLEEP_MARGIN = 0.9

# Longer than a worker waits for its next command, and the coordinator for an answer, when steps are short. When steps
# are long, the cost of waking does not matter.
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
            # Without the first run of each kind: in it, some processes still waited in the other way.
            spinning, sleeping = self._seconds[1:TRIAL_RUNS], self._seconds[TRIAL_RUNS + 1 :]
            self._spinning_is_faster = statistics.median(sleeping) > SLEEP_MARGIN * statistics.median(spinning)
        elif num_runs == PERIOD_RUNS:
            self._seconds.clear()
        if len(self._seconds) < TRIAL_RUNS:
            self.spins = True
        else:
            self.spins = self._spinning_is_faster and num_runs >= 2 * TRIAL_RUNS
