"""Mailboxes in shared memory: the coordinator posts commands, and workers answer when they have carried them out.

The module kernels.ipc.mailbox defines the protocol. Pipes wake sleeping processes, and their end of file shows that the
other process has died.
"""

from __future__ import annotations

from collections.abc import Sequence

from partrain.kernels.ipc import mailbox, step_ring
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
    arrays : the arrays from which each worker's `Mailbox` is made, and the words of the members of a series of steps.

    Raises
    ------
    ResourceError
        There is too little memory.
    """

    KERNELS = (mailbox.post, mailbox.await_answer, mailbox.say)

    def __init__(self, num_workers: int) -> None:
        self._num_workers = num_workers
        specs = {
            "boxes": ArraySpec((mailbox.size(num_workers),), "int64"),
            "members": ArraySpec((step_ring.size(num_workers),), "int64"),
        }
        self.arrays = SharedArrays(specs, {})
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

    Attributes
    ----------
    more_follows : whether the last command asked the worker to spin for a moment after it.
    """

    KERNELS = (mailbox.await_command, mailbox.answer, mailbox.say)

    def __init__(self, arrays: SharedArrays, worker: int) -> None:
        self._boxes, self._box = arrays["boxes"], mailbox.box_of(worker)
        self._number = int(self._boxes[self._box + mailbox.DONE])
        self.more_follows = False

    def has_command(self, num_yields: int = 0) -> bool:
        """Return whether there is a command, or one comes within `num_yields` yields."""
        found: bool = mailbox.await_command(self._boxes, self._box, self._number, num_yields)
        return found

    def set_asleep(self, asleep: bool) -> None:
        """Tell the coordinator whether a command must wake the worker. After True, look for one before sleeping."""
        mailbox.say(self._boxes, self._box + mailbox.ASLEEP, asleep)

    def take_command(self) -> list[int]:
        """Return the command that has been posted."""
        self._number += 1
        first = self._box + mailbox.POSTED + 1
        more_follows, *fields = map(int, self._boxes[first : first + 1 + mailbox.FIELDS])
        self.more_follows = bool(more_follows)
        return fields

    def answer(self) -> bool:
        """Report that the command has been carried out; return whether the coordinator must be woken."""
        must_wake: bool = mailbox.answer(self._boxes, self._box, self._number)
        return must_wake
