"""Mailboxes in shared memory: the coordinator posts commands, and workers answer when they have carried them out.

The module kernels.ipc.mailbox defines the protocol. Pipes wake sleeping processes, and their end of file shows that the
other process has died.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from partrain.kernels.ipc import mailbox
from partrain.system.shared_arrays import ArraySpec, SharedArrays

# The message through a pipe that wakes a process.
WAKE = b"W"
# How often a spinning process yields between two readings of the clock: about 50 microseconds if no other
# process runs.
NUM_YIELDS = 16


class Mailboxes:
    """The coordinator's side of all mailboxes.

    Parameters
    ----------
    num_workers : the number of boxes; workers are counted from 0.

    Attributes
    ----------
    arrays : the arrays from which each worker's `Mailbox` is made.

    Raises
    ------
    ResourceError
        There is too little memory.
    """

    KERNELS = (mailbox.post, mailbox.await_answer, mailbox.say)

    def __init__(self, num_workers: int) -> None:
        self._num_workers = num_workers
        self.arrays = SharedArrays({"boxes": ArraySpec((mailbox.size(num_workers),), "int64")}, {})
        self._boxes = self.arrays["boxes"]

    def clear(self, worker: int) -> None:
        """Discard an unanswered command. The worker that had it must be dead."""
        box = mailbox.box_of(worker)
        self._boxes[[box + mailbox.DONE, box + mailbox.TAKEN]] = self._boxes[box + mailbox.POSTED]
        self._boxes[box + mailbox.ASLEEP] = False

    def post(self, worker: int, command: Sequence[int], *, more_follows: bool = False) -> bool:
        """Give a worker its next command; return whether the worker sleeps and must be woken.

        Parameters
        ----------
        worker : the worker's number; it has no command.
        command : `kernels.ipc.mailbox.FIELDS` numbers.
        more_follows : whether the worker should spin for a moment after this command.
        """
        must_wake: bool = mailbox.post(self._boxes, mailbox.box_of(worker), more_follows, tuple(command))
        return must_wake

    def take_answer(self, num_yields: int = 0) -> int | None:
        """Take an answer; return the number of its worker, or None if no answer comes within `num_yields` yields."""
        worker: int = mailbox.await_answer(self._boxes, self._num_workers, num_yields)
        return None if worker < 0 else worker

    def set_asleep(self, asleep: bool) -> None:
        """Tell workers whether an answer must wake the coordinator. After True, look for answers before sleeping."""
        mailbox.say(self._boxes, mailbox.COORDINATOR_ASLEEP, asleep)

    def close(self) -> None:
        """Close the arrays; no further worker can be given them."""
        self.arrays.close()


class Mailbox:
    """A worker's side of its mailbox.

    Parameters
    ----------
    arrays : the arrays of the coordinator's `Mailboxes`.
    worker : the worker's number.
    help_requests : requests for help with an update are announced in its first element (see `UpdateHelper`).

    Attributes
    ----------
    more_follows : whether the last command asked the worker to spin for a moment after it.
    """

    KERNELS = (mailbox.await_news, mailbox.answer, mailbox.say)

    def __init__(self, arrays: SharedArrays, worker: int, help_requests: NDArray[np.int64]) -> None:
        self._boxes, self._box, self._help_requests = arrays["boxes"], mailbox.box_of(worker), help_requests
        self._number, self._last_request = int(self._boxes[self._box + mailbox.DONE]), int(help_requests[0])
        self.more_follows = False

    def has_command(self) -> bool:
        """Return whether there is a command."""
        return self._look(0) == mailbox.COMMAND

    def await_command(self, answer_request: Callable[[int], object]) -> bool:
        """Return whether a command comes within NUM_YIELDS yields. If a request for help comes first, answer it."""
        found = self._look(NUM_YIELDS)
        if found == mailbox.HELP_REQUEST:
            self._last_request = int(self._help_requests[0])
            answer_request(self._last_request)
        return found == mailbox.COMMAND

    def _look(self, num_yields: int) -> int:
        found: int = mailbox.await_news(
            self._boxes, self._box, self._number, self._help_requests, self._last_request, num_yields
        )
        return found

    def set_asleep(self, asleep: bool) -> None:
        """Tell the coordinator whether a command must wake the worker. After True, look for one before sleeping."""
        mailbox.say(self._boxes, self._box + mailbox.ASLEEP, asleep)

    def take_command(self) -> list[int]:
        """Return the command that has been posted. Earlier requests for help have lapsed."""
        self._number += 1
        self._last_request = int(self._help_requests[0])
        first = self._box + mailbox.POSTED + 1
        more_follows, *fields = map(int, self._boxes[first : first + 1 + mailbox.FIELDS])
        self.more_follows = bool(more_follows)
        return fields

    def answer(self) -> bool:
        """Report that the command has been carried out; return whether the coordinator must be woken."""
        must_wake: bool = mailbox.answer(self._boxes, self._box, self._number)
        return must_wake
