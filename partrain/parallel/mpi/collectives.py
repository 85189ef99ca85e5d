"""The operations in which all ranks of an MPI communicator take part. MPI only moves bytes; it never sums."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.parallel.mpi.communicators import MPI
from partrain.parallel.mpi.exchange import Pieces


class Collectives:
    """The operations of all ranks of one communicator.

    Parameters
    ----------
    communicator : carries the messages.
    complete : starts a non-blocking operation, and waits until it is complete.

    Attributes
    ----------
    rank, size : this rank's number in the communicator, and the number of its ranks.
    """

    def __init__(self, communicator: MPI.Intracomm, complete: Callable[[Callable[[], MPI.Request]], None]) -> None:
        self._communicator, self._complete = communicator, complete
        self.rank, self.size = communicator.Get_rank(), communicator.Get_size()

    def allgatherv(self, buffer: NDArray[np.uint8], counts: Sequence[int], offsets: Sequence[int]) -> None:
        """Fill `buffer` with the pieces of all ranks; this rank's piece is in it already.

        Parameters
        ----------
        buffer : uint8; everything except this rank's piece is written.
        counts, offsets : the number of bytes of each rank, and where they begin.
        """
        self._complete(lambda: self._communicator.Iallgatherv(MPI.IN_PLACE, [buffer, counts, offsets, MPI.BYTE]))

    def alltoallv(self, sent: Pieces, received: Pieces) -> None:
        """Send each rank its piece of `sent`, and fill `received` with the pieces from all ranks."""
        self._complete(lambda: self._communicator.Ialltoallv([*sent, MPI.BYTE], [*received, MPI.BYTE]))

    def allgather(self, value: Any) -> list[Any]:
        """Return the value that each rank passed, in the order of the ranks; values must be representable as JSON."""
        text = json.dumps(value).encode()
        counts = np.zeros(self.size, np.int64)
        counts[self.rank] = len(text)
        self.allgatherv(counts.view(np.uint8), [8] * self.size, [8 * k for k in range(self.size)])
        offsets = np.concatenate([[0], np.cumsum(counts)])
        buffer = np.empty(int(offsets[-1]), np.uint8)
        buffer[offsets[self.rank] : offsets[self.rank + 1]] = np.frombuffer(text, np.uint8)
        self.allgatherv(buffer, counts.tolist(), offsets[:-1].tolist())
        return [json.loads(buffer[offsets[k] : offsets[k + 1]].tobytes()) for k in range(self.size)]

    def broadcast(self, content: bytes | None) -> bytes:
        """Return the bytes that rank 0 passed as `content`, on all ranks; the others pass None."""
        size = np.zeros(1, np.int64)
        if content is not None:
            size[0] = len(content)
        self._complete(lambda: self._communicator.Ibcast([size, MPI.INT64_T], root=0))
        buffer = np.empty(int(size[0]), np.uint8)
        if content is not None:
            buffer[:] = np.frombuffer(content, np.uint8)
        # In parts, because MPI counts in 32 bits.
        for first in range(0, len(buffer), 2**30):
            part = buffer[first : first + 2**30]
            self._complete(functools.partial(self._communicator.Ibcast, [part, MPI.BYTE], root=0))
        return buffer.tobytes()

    def barrier(self) -> None:
        """Return when all ranks have called this."""
        self._complete(self._communicator.Ibarrier)
