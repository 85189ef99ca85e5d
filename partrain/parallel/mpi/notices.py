"""Messages from one rank to another, outside of the operations of all ranks.

A rank that fails tells the others. One that waits asks whether they are alive, and a busy one answers, too. Rank 0 asks
for states. Whoever calls MPI holds the lock of the communicator.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import numpy as np

from partrain.parallel.mpi.communicators import MPI
from partrain.parallel.mpi.liveness import LivenessCheck
from partrain.parallel.mpi.state_collection import StateCollection

# The maximum length of a failure notice: the exit code, then text. An answer is one number: whether the rank waits too.
NOTICE_BYTES = 8192
_NUMBER = struct.Struct("<q")

_FAILURE_TAG, _QUESTION_TAG, _ANSWER_TAG, _COLLECT_TAG, _STATE_TAG = range(1, 6)


class Notices:
    """The messages of this rank and to it.

    Parameters
    ----------
    communicator : carries the messages.
    is_waiting : returns whether this rank waits for others.

    Attributes
    ----------
    failures : exit codes and texts of the ranks that have failed, by rank.
    liveness : what this rank knows of the others in its present wait; None: it has not asked yet.
    states : the states that rank 0 collects.
    """

    def __init__(self, communicator: MPI.Intracomm, is_waiting: Callable[[], bool]) -> None:
        self._communicator, self._is_waiting = communicator, is_waiting
        self.rank, self.size = communicator.Get_rank(), communicator.Get_size()
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

    def others(self) -> Iterator[int]:
        """Return the other ranks."""
        return (rank for rank in range(self.size) if rank != self.rank)

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

    def receive(self) -> None:
        """Receive all messages that have come, and answer questions whether this rank is alive."""
        status = MPI.Status()
        while self._communicator.Iprobe(MPI.ANY_SOURCE, MPI.ANY_TAG, status):
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
            else:
                text = content[_NUMBER.size :].decode(errors="replace")
                self.failures[rank] = (_NUMBER.unpack_from(content)[0], text)

    def _send(self, content: bytes, rank: int, tag: int) -> None:
        self._sent = [request for request in self._sent if not request.Test()]
        self._sent.append(self._communicator.Isend([np.frombuffer(content, np.uint8), MPI.BYTE], dest=rank, tag=tag))
