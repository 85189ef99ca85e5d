"""How rank 0 gets parts of the state of other ranks, whenever it wants: it asks, and they answer when they wait.

This is no collective operation, because rank 0 alone decides about some saves. A rank that waits in an exchange has the
state after the last committed step. So has one that fails, until it ends. A rank may still wait for the end of the step
that rank 0 has just committed: then it answers after that.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

# A question: its number, and the step. An answer: the number of the question, and then the state.
_QUESTION, _ANSWER = struct.Struct("<qq"), struct.Struct("<q")


class Request(Protocol):
    """A message that is being received."""

    def Test(self) -> bool:
        """Return whether it is complete."""


class StateCollection:
    """The questions of rank 0, and the answers of the others.

    Parameters
    ----------
    ask : sends a question to a rank.
    answer : sends an answer to rank 0.

    Attributes
    ----------
    offered : returns the state of this rank after a step; None: that step is not committed here.
    receiving : the answers that are being received: their senders, requests, and buffers, into which MPI writes until
        the request is complete.
    """

    def __init__(self, ask: Callable[[bytes, int], None], answer: Callable[[bytes], None]) -> None:
        self._ask, self._answer = ask, answer
        self._number = 0
        self._states: dict[int, bytes] = {}
        self.receiving: list[tuple[int, Request, NDArray[np.uint8]]] = []
        self._asked: tuple[int, int] | None = None
        self.offered: Callable[[int], bytes | None] | None = None

    def begin(self, step: int, others: Iterable[int]) -> None:
        """Ask the others for their states after `step`."""
        self._number += 1
        self._states = {}
        for other in others:
            self._ask(_QUESTION.pack(self._number, step), other)

    def received(self) -> dict[int, bytes]:
        """Return the answers to the last question that have come, by rank."""
        begun, self.receiving = self.receiving, []
        for rank, request, buffer in begun:
            if not request.Test():
                self.receiving.append((rank, request, buffer))
            elif _ANSWER.unpack_from(buffer.data)[0] == self._number:
                self._states[rank] = buffer[_ANSWER.size :].tobytes()
        return self._states

    def receive(self, rank: int, request: Request, buffer: NDArray[np.uint8]) -> None:
        """Take note of an answer that is being received into `buffer`."""
        self.receiving.append((rank, request, buffer))

    def receive_question(self, content: bytes) -> None:
        """Take note of a question. It is answered later: the thread that answers for a busy rank knows no state."""
        self._asked = _QUESTION.unpack(content)

    def answer(self) -> None:
        """Answer a question, if this rank has the state; called by the main thread only, while it waits."""
        if self._asked is None or self.offered is None:
            return
        number, step = self._asked
        if (state := self.offered(step)) is not None:
            self._asked = None
            self._answer(_ANSWER.pack(number) + state)
