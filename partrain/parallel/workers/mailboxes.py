"""What coordinator and workers tell each other in shared memory: commands, and that they have been carried out.

kernels.ipc.mailbox defines the protocol. A sleeping process is woken through its pipe; the end of the pipe also shows
that the other process is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from partrain.kernels.ipc import mailbox
from partrain.system.shared_arrays import ArraySpec, SharedArrays

# What goes through a pipe to wake somebody.
WAKE = b"W"
# How often one gives way before one asks what time it is: not much longer than 50 microseconds, if nobody comes.
TURNS = 16


class Mailboxes:
    """The coordinator's side.

    Parameters
    ----------
    num_workers : how many boxes there are; workers are counted from 0.

    Attributes
    ----------
    arrays : for the workers' `Mailbox`.

    Raises
    ------
    ResourceError
        The memory cannot be had.
    """

    KERNELS = (mailbox.post, mailbox.await_answer, mailbox.say)

    def __init__(self, num_workers: int) -> None:
        self._num_workers = num_workers
        self.arrays = SharedArrays({"boxes": ArraySpec((mailbox.size(num_workers),), "int64")}, {})
        self._boxes = self.arrays["boxes"]

    def clear(self, worker: int) -> None:
        """Forget a command that has not been answered. There is no process that could still answer."""
        box = mailbox.box_of(worker)
        self._boxes[[box + mailbox.DONE, box + mailbox.TAKEN]] = self._boxes[box + mailbox.POSTED]
        self._boxes[box + mailbox.ASLEEP] = False

    def post(self, worker: int, command: Sequence[int], *, more_follows: bool = False) -> bool:
        """Give a worker, which has no command, its next one; return whether it is to be woken.

        Parameters
        ----------
        worker : its number.
        command : what the worker gets: `kernels.ipc.mailbox.FIELDS` numbers.
        more_follows : whether it shall stay awake for a moment after this one.
        """
        must_wake: bool = mailbox.post(self._boxes, mailbox.box_of(worker), more_follows, tuple(map(int, command)))
        return must_wake

    def take_answer(self, turns: int = 0) -> int | None:
        """Take an answer, if there is one or if one comes in a moment of TURNS; return whose it is."""
        worker: int = mailbox.await_answer(self._boxes, self._num_workers, turns)
        return None if worker < 0 else worker

    def say_asleep(self, asleep: bool) -> None:
        """Say whether who answers must wake the coordinator. Before it sleeps, it looks for answers once more."""
        mailbox.say(self._boxes, mailbox.COORDINATOR_ASLEEP, asleep)

    def close(self) -> None:
        """Close what workers are given at their start."""
        self.arrays.close()


class Mailbox:
    """A worker's side.

    Parameters
    ----------
    arrays : those of the coordinator's `Mailboxes`.
    worker : its number.
    calls : in whose first element something else may be announced, which is no command.

    Attributes
    ----------
    more_follows : what was said with the last command.
    """

    KERNELS = (mailbox.await_news, mailbox.answer, mailbox.say)

    def __init__(self, arrays: SharedArrays, worker: int, calls: NDArray[np.int64]) -> None:
        self._boxes, self._box, self._calls = arrays["boxes"], mailbox.box_of(worker), calls
        self._number, self._call = int(self._boxes[self._box + mailbox.DONE]), int(calls[0])
        self.more_follows = False

    def has_command(self) -> bool:
        """Return whether there is a command."""
        return self._look(0) == mailbox.COMMAND

    def await_command(self, answer_call: Callable[[int], object]) -> bool:
        """Return whether there is a command, or one comes in a moment of TURNS; answer a call that comes meanwhile."""
        found = self._look(TURNS)
        if found == mailbox.CALL:
            self._call = int(self._calls[0])
            answer_call(self._call)
        return found == mailbox.COMMAND

    def _look(self, turns: int) -> int:
        found: int = mailbox.await_news(self._boxes, self._box, self._number, self._calls, self._call, turns)
        return found

    def say_asleep(self, asleep: bool) -> None:
        """Say whether who posts must wake the worker. Before it sleeps, it looks for a command once more."""
        mailbox.say(self._boxes, self._box + mailbox.ASLEEP, asleep)

    def take_command(self) -> list[int]:
        """Return the command that is there. What was called before is over."""
        self._number += 1
        self._call = int(self._calls[0])
        first = self._box + mailbox.POSTED + 1
        more_follows, *fields = map(int, self._boxes[first : first + 1 + mailbox.FIELDS])
        self.more_follows = bool(more_follows)
        return fields

    def answer(self) -> bool:
        """Say that the command has been carried out; return whether the coordinator is to be woken."""
        must_wake: bool = mailbox.answer(self._boxes, self._box, self._number)
        return must_wake
