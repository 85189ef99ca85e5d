"""Ranks of a job as threads of this process, which exchange through arrays, and count messages and bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.parallel.mpi.exchange import Pieces

# A rank that waits so long for others hangs.
PATIENCE_SECONDS = 60.0


class Wires:
    """What connects the ranks of a job: each puts its buffers here, and all meet before and after others read them."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.buffers: list[Any] = [None] * size
        self.states: dict[int, Callable[[int], bytes | None]] = {}
        self._barrier = threading.Barrier(size)

    def meet(self) -> None:
        self._barrier.wait(PATIENCE_SECONDS)

    def ranks(self) -> list[SimulatedRank]:
        return [SimulatedRank(rank, self) for rank in range(self.size)]


class SimulatedRank:
    """A rank, with the interface of `partrain.parallel.mpi.communicator.Communicator`.

    Attributes
    ----------
    num_messages, num_bytes : what this rank has sent to others, as if to each of them directly.
    contributed : the bytes of its piece of the last Allgatherv.
    """

    launcher_has_ended = False

    def __init__(self, rank: int, wires: Wires) -> None:
        self.rank, self.size, self._wires = rank, wires.size, wires
        self.num_messages = self.num_bytes = self.contributed = 0

    def allgatherv(self, buffer: NDArray[np.uint8], counts: Sequence[int], offsets: Sequence[int]) -> None:
        self.contributed = counts[self.rank]
        self._count([counts[self.rank]] * self.size)
        self._fill(buffer, counts, offsets, (buffer, [counts[self.rank]] * self.size, [offsets[self.rank]] * self.size))

    def alltoallv(self, sent: Pieces, received: Pieces) -> None:
        self._count(sent[1])
        self._fill(*received, sent)

    def offer(self, state: Callable[[int], bytes | None]) -> None:
        self._wires.states[self.rank] = state

    def collect(self, step: int) -> dict[int, bytes]:
        states = {rank: state(step) for rank, state in self._wires.states.items() if rank != self.rank}
        return {rank: state for rank, state in states.items() if state is not None}

    def _count(self, counts: Sequence[int]) -> None:
        self.num_messages += self.size - 1
        self.num_bytes += sum(counts) - counts[self.rank]

    def _fill(self, buffer: NDArray[np.uint8], counts: Sequence[int], offsets: Sequence[int], sent: Pieces) -> None:
        self._wires.buffers[self.rank] = sent
        self._wires.meet()
        pieces = []
        for source, of_ranks, places in self._wires.buffers:
            first, size = places[self.rank], of_ranks[self.rank]
            pieces.append(source[first : first + size].copy())
        self._wires.meet()
        for count, place, piece in zip(counts, offsets, pieces, strict=True):
            assert len(piece) == count
            buffer[place : place + count] = piece


def run_together(calls: Sequence[Callable[[], object]]) -> list[BaseException | None]:
    """Call all at the same time, one in each thread; return their exceptions."""
    failures: list[BaseException | None] = [None] * len(calls)

    def work(number: int) -> None:
        try:
            calls[number]()
        except Exception as error:
            failures[number] = error

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures
