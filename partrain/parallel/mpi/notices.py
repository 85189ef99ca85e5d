"""Messages from one rank to another, outside of the operations of all ranks.

A rank that fails tells the others. One that waits asks whether they are alive, and a busy one answers, too. Rank 0 asks
for states, and tells spares when the job ends. A spare tells rank 0 which signal it has received. Whoever calls MPI
holds the lock of the communicator.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import numpy as np

from partrain.parallel.mpi.communicators import MPI, tells_of_death
from partrain.parallel.mpi.liveness import LivenessCheck
from partrain.parallel.mpi.state_collection import StateCollection
from partrain.system.signals import Interruption

# The maximum length of a failure notice: the exit code, then text. An answer is one number: whether the rank waits too.
NOTICE_BYTES = 8192
_NUMBER = struct.Struct("<q")

_FAILURE_TAG, _QUESTION_TAG, _ANSWER_TAG, _COLLECT_TAG, _STATE_TAG, _END_TAG, _SIGNAL_TAG = range(1, 8)


class Notices:
    """The messages of this rank and to it.

    Parameters
    ----------
    communicator : carries the messages.
    num_working : the number of ranks that are no spares.
    is_waiting : returns whether this rank waits for others.
    received : the signal that this rank has received; on rank 0, it becomes that of a spare.

    Attributes
    ----------
    failures : exit codes and texts of the ranks that have failed, by rank.
    liveness : what this rank knows of the others in its present wait; None: it has not asked yet.
    states : the states that rank 0 collects.
    dead_spares : the spares that have died. The job goes on as it is.
    ended_by : what rank 0 has told this spare: the signal that ends the job, 0 at its completion. None: it goes on.
    """

    def __init__(
        self, communicator: MPI.Intracomm, num_working: int, is_waiting: Callable[[], bool], received: Interruption
    ) -> None:
        self._communicator, self._num_working, self._is_waiting = communicator, num_working, is_waiting
        self._received, self._has_passed_on = received, False
        self.rank, self.size = communicator.Get_rank(), communicator.Get_size()
        self.dead_spares: set[int] = set()
        self.ended_by: int | None = None
        self.failures: dict[int, tuple[int, str]] = {}
        self.liveness: LivenessCheck | None = None
        self.states = StateCollection(
            lambda content, rank: self._send(content, rank, _COLLECT_TAG),
            lambda content: self._send(content, 0, _STATE_TAG),
        )
        self._sent: list[MPI.Request] = []

    @property
    def requests(self) -> list[object]:
        """The requests of messages that may not have been sent or received yet; they keep the buffers alive."""
        return [*self._sent, *(request for _, request, _ in self.states.receiving)]

    @property
    def is_spare(self) -> bool:
        """Whether this rank is a spare."""
        return self.rank >= self._num_working

    @property
    def num_spares(self) -> int:
        """The number of living spares."""
        return self.size - self._num_working - len(self.dead_spares)

    def others(self) -> Iterator[int]:
        """Return the other ranks, without dead spares."""
        return (rank for rank in range(self.size) if rank != self.rank and rank not in self.dead_spares)

    def send_failure(self, exit_code: int, text: str) -> tuple[int, str]:
        """Tell the others that this rank fails; return the notice as they read it."""
        encoded = text.encode()[: NOTICE_BYTES - _NUMBER.size]
        for other in self.others():
            self._send(_NUMBER.pack(exit_code) + encoded, other, _FAILURE_TAG)
        return exit_code, encoded.decode(errors="replace")

    def ask_others(self) -> None:
        """Ask all others whether they are alive."""
        for other in self.others():
            self._send(b"", other, _QUESTION_TAG)

    def end_spares(self, number: int) -> None:
        """Tell the spares that the job ends by this signal, or that it is completed: 0."""
        for spare in self.others():
            if spare >= self._num_working:
                self._send(_NUMBER.pack(number), spare, _END_TAG)

    def pass_on_signal(self) -> None:
        """Tell rank 0 which signal this spare has received, if any: the job then stops as if rank 0 had received it."""
        if self._received.received is not None and not self._has_passed_on:
            self._has_passed_on = True
            self._send(_NUMBER.pack(self._received.received), 0, _SIGNAL_TAG)

    def receive(self) -> None:
        """Receive all messages that have come, and answer questions whether this rank is alive."""
        status = MPI.Status()
        while self._has_come(status):
            received, rank, tag = np.empty(status.Get_count(MPI.BYTE), np.uint8), status.Get_source(), status.Get_tag()
            if tag == _STATE_TAG:  # it may be large
                self.states.receive(rank, self._communicator.Irecv([received, MPI.BYTE], rank, tag), received)
                continue
            self._communicator.Recv([received, MPI.BYTE], rank, tag)
            content = received.tobytes()
            if tag == _QUESTION_TAG:
                self._send(_NUMBER.pack(self._is_waiting()), rank, _ANSWER_TAG)
            elif tag == _ANSWER_TAG:
                if self.liveness is not None:
                    self.liveness.record_answer(rank, bool(_NUMBER.unpack(content)[0]))
            elif tag == _COLLECT_TAG:
                self.states.receive_question(content)
            elif tag == _END_TAG:
                (self.ended_by,) = _NUMBER.unpack(content)
            elif tag == _SIGNAL_TAG:
                self._received.received = self._received.received or _NUMBER.unpack(content)[0]
            else:
                text = content[_NUMBER.size :].decode(errors="replace")
                self.failures[rank] = (_NUMBER.unpack_from(content)[0], text)

    def _has_come(self, status: MPI.Status) -> bool:
        """Return whether a message has come. Take note of dead spares: MPI tells of each death once."""
        try:
            return self._communicator.Iprobe(MPI.ANY_SOURCE, MPI.ANY_TAG, status)
        except MPI.Exception as error:
            if not tells_of_death(error):
                raise
            failed = self._communicator.Get_failed()
            dead = failed.Translate_ranks(None, self._communicator.Get_group())
            if not dead or min(dead) < self._num_working:
                raise
            self._communicator.Ack_failed(len(dead))
            self.dead_spares.update(dead)
            return False

    def _send(self, content: bytes, rank: int, tag: int) -> None:
        self._sent = [request for request in self._sent if not _is_sent(request)]
        try:
            self._sent.append(self._communicator.Isend([np.frombuffer(content, np.uint8), MPI.BYTE], rank, tag))
        except MPI.Exception as error:
            if not tells_of_death(error):  # `receive` takes note of it
                raise


def _is_sent(request: MPI.Request) -> bool:
    """Return whether a message needs no memory any more: it has arrived, or its receiver is dead."""
    try:
        return request.Test()
    except MPI.Exception as error:
        if not tells_of_death(error):
            raise
        return True
