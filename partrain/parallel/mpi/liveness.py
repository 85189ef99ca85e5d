"""Which ranks still answer: a waiting rank asks the others, so that no wait lasts forever.

A busy rank still answers; the others treat it as late and wait. A rank that computes, compiles, reads data or saves is
busy. A rank that does not answer is stopped, or its host is down; the job then ends, and the message names that rank.

Silence counts only while this rank listens. A rank that was itself stopped for a while, as a batch system stops a whole
job, cannot know which of the others answered meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from partrain.errors import FailedRun

# How long a rank waits before it asks the others, and between two questions. No step takes that long.
ASK_SECONDS = 5.0
# After how much silence a warning is printed, and after how much the job ends. Nothing that a rank does keeps it from
# answering, but a machine that swaps or is migrated can be silent for seconds.
WARN_SECONDS = 30.0
SILENT_SECONDS = 60.0
# In an elastic job, a process on its host kills a silent rank after SILENT_SECONDS. A host whose ranks are silent for
# longer is cut off. After how much silence a rank ends itself if it hears from fewer than half of the ranks, after how
# much silence of the host its ranks count as dead, and after how much the job ends if they do not.
ISOLATED_SECONDS = 75.0
CUT_OFF_SECONDS = 90.0
HOPELESS_SECONDS = 120.0
# How long to wait for ranks that answer. To read images for the first time can take most of an hour.
LATE_SECONDS = 3600.0
# While a rank listens, it looks at the clock more often than this. A longer interval means that it did not run.
MOMENT_SECONDS = 1.0
# Goes on while the machine is suspended, where there is such a clock.
RUNNING_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Stops:
    """Knows whether this process was once stopped for so long that the others take it for dead."""

    def __init__(self) -> None:
        self._ran_at, self._was_long = time.clock_gettime(RUNNING_CLOCK), False

    def were_long(self) -> bool:
        """Take note that this process runs now, which must be done often, and return whether it was stopped."""
        before, self._ran_at = self._ran_at, time.clock_gettime(RUNNING_CLOCK)
        self._was_long |= self._ran_at - before > SILENT_SECONDS
        return self._was_long


class LivenessCheck:
    """What one rank knows of the others during one wait.

    Parameters
    ----------
    rank : this rank.
    names : the names of all ranks, for messages.
    others : the ranks that should answer.
    now : the time in seconds, as for the other methods.
    elastic : whether a process on each host kills its ranks that are silent for SILENT_SECONDS, and the job goes on.
    is_spare : whether this rank waits for the end of the job, and so not for ranks that are busy.
    """

    def __init__(
        self,
        rank: int,
        names: Sequence[str],
        others: Iterable[int],
        now: float,
        *,
        elastic: bool = False,
        is_spare: bool = False,
    ) -> None:
        self._end_s = HOPELESS_SECONDS if elastic else SILENT_SECONDS
        self._after = f"it is killed after {SILENT_SECONDS:g} s" if elastic else f"the job ends after {self._end_s:g} s"
        self._rank, self._names, self._is_spare = rank, names, is_spare
        self._others = list(others)
        self._looked_at = now
        self._listened_s = self._ask_at = 0.0
        self._answered_at = dict.fromkeys(self._others, 0.0)
        self._waiting: set[int] = set()
        self._reported_silent: set[int] = set()
        self._report_late_at = WARN_SECONDS

    def must_ask(self, now: float) -> bool:
        """Count the time since the last call as listened; return whether to ask the others again."""
        moment, self._looked_at = now - self._looked_at, now
        if moment < MOMENT_SECONDS:
            self._listened_s += moment
        if self._listened_s < self._ask_at:
            return False
        self._ask_at = self._listened_s + ASK_SECONDS
        return True

    def record_answer(self, other: int, is_waiting: bool) -> None:
        """Record the answer of another rank, and whether that rank is waiting too."""
        self._answered_at[other] = self._listened_s
        (self._waiting.add if is_waiting else self._waiting.discard)(other)

    def check(self, warn: Callable[[str], None]) -> None:
        """Warn of the ranks that the job is waiting for; of several waiting ranks, only the first one warns.

        Raises
        ------
        FailedRun
            A rank has been silent or late for too long. All ranks that observe it raise the same message.
        """
        silent = self.silent_for(WARN_SECONDS)
        late = [other for other in self._others if other not in silent and other not in self._waiting]
        if dead := self.silent_for(self._end_s):
            raise FailedRun(
                f"no answer from {self._list(dead)} for {self._end_s:g} s: the process is stopped or hangs, or its "
                "host is down; the job ends, and partrain resume continues it"
            )
        if self._is_spare:
            return
        if self._listened_s > LATE_SECONDS:
            raise FailedRun(
                f"waited {LATE_SECONDS:g} s for {self._list(late) or 'each other'}: every process answers, but they do "
                "not reach the same point; the job ends, and partrain resume continues it"
            )
        if any(other < self._rank for other in self._waiting.difference(silent)):
            return
        if new := [other for other in silent if other not in self._reported_silent]:
            self._reported_silent.update(new)
            warn(
                f"no answer from {self._list(new)} for {WARN_SECONDS:g} s: the process is stopped or hangs, or its "
                f"host is down; {self._after}"
            )
        if late and self._listened_s > self._report_late_at:
            warn(f"waiting for {self._list(late)} for {self._listened_s:.0f} s: the process answers, but is busy")
            self._report_late_at *= 2

    def silent_for(self, seconds: float) -> list[int]:
        """Return the ranks that have not answered for so long."""
        return [other for other in self._others if self._listened_s - self._answered_at[other] > seconds]

    def _list(self, ranks: Sequence[int]) -> str:
        return ", ".join(self._names[rank] for rank in ranks)
