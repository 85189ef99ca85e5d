"""Which of the other ranks still answer: asked by a rank that waits for them, and that must not wait for ever.

A rank that computes, compiles, reads data or saves is late, and is waited for: it answers all the same. One that does
not answer was stopped, or its host is gone. The job then ends, and says which one it was.

Only silence that was heard counts: a rank that was itself stopped for a while, as a batch system stops a whole job,
cannot know who answered meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from partrain.errors import FailedRun

# How long a rank waits before it asks the others, and between two questions: no step asks any.
ASK_SECONDS = 5.0
# After how long a silence people are told, and after how long the job ends. Nothing that a rank does keeps it from
# answering, but a machine that swaps, or is moved to another one, can be silent for seconds.
WARN_SECONDS = 30.0
SILENT_SECONDS = 60.0
# How long ranks that answer are waited for. Pictures that are read for the first time can take most of an hour.
LATE_SECONDS = 3600.0
# A moment in which this rank listened does not last longer; if it did, this rank did not run.
MOMENT_SECONDS = 1.0


class RollCall:
    """What is known of the other ranks during one wait.

    Parameters
    ----------
    rank : this one.
    names : of all ranks, for people.
    now : the time in seconds, as for the other methods.
    """

    def __init__(self, rank: int, names: Sequence[str], now: float) -> None:
        self._rank, self._names = rank, names
        self._others = [other for other in range(len(names)) if other != rank]
        self._looked_at = now
        self._listened_s = self._ask_at = 0.0
        self._answered_at = dict.fromkeys(self._others, 0.0)
        self._waiting: set[int] = set()
        self._told_silent: set[int] = set()
        self._tell_late_at = WARN_SECONDS

    def must_ask(self, now: float) -> bool:
        """Count the time since the last call as listened; return whether the others are to be asked once more."""
        moment, self._looked_at = now - self._looked_at, now
        if moment < MOMENT_SECONDS:
            self._listened_s += moment
        if self._listened_s < self._ask_at:
            return False
        self._ask_at = self._listened_s + ASK_SECONDS
        return True

    def note(self, other: int, is_waiting: bool) -> None:
        """Note the answer of another rank: whether it is waiting, too."""
        self._answered_at[other] = self._listened_s
        (self._waiting.add if is_waiting else self._waiting.discard)(other)

    def judge(self, warn: Callable[[str], None]) -> None:
        """Tell people whom the job is waiting for; of the ranks that wait, the first one does.

        Raises
        ------
        FailedRun
            A rank has been silent, or late, for too long. The message is the same on all ranks that see it so.
        """
        silent = self._silent_for(WARN_SECONDS)
        late = [other for other in self._others if other not in silent and other not in self._waiting]
        if dead := self._silent_for(SILENT_SECONDS):
            raise FailedRun(
                f"no answer from {self._list(dead)} for {SILENT_SECONDS:g} s: the process is stopped or hangs, or its "
                "host is gone; the job ends, partrain resume goes on with it"
            )
        if self._listened_s > LATE_SECONDS:
            raise FailedRun(
                f"waited {LATE_SECONDS:g} s for {self._list(late) or 'each other'}: every process answers, but they do "
                "not come together; the job ends, partrain resume goes on with it"
            )
        if any(other < self._rank for other in self._waiting.difference(silent)):
            return
        if news := [other for other in silent if other not in self._told_silent]:
            self._told_silent.update(news)
            warn(
                f"no answer from {self._list(news)} for {WARN_SECONDS:g} s: the process is stopped or hangs, or its "
                f"host is gone; after {SILENT_SECONDS:g} s the job ends"
            )
        if late and self._listened_s > self._tell_late_at:
            warn(f"waiting for {self._list(late)} for {self._listened_s:.0f} s: the process answers, and is busy")
            self._tell_late_at *= 2

    def _silent_for(self, seconds: float) -> list[int]:
        return [other for other in self._others if self._listened_s - self._answered_at[other] > seconds]

    def _list(self, ranks: Sequence[int]) -> str:
        return ", ".join(self._names[rank] for rank in ranks)
