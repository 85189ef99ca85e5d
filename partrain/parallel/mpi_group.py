"""The processes ("ranks") that MPI joins: they exchange bytes, meet, and end together. Alone in importing mpi4py.

MPI only moves bytes here; it never adds. Every call is one that does not block, and is asked for its end:

- MPI's own waits spin on a whole core, which a worker could use. After SPIN_SECONDS this one sleeps in between.
- MPI's own waits hear of no signal, and do not end when another rank has failed. This one does.

A rank that fails tells the others so, each of which then gives up its wait, whatever it waits for. All meet once more
at the end, so that the one that keeps the run can save it first.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections.abc import Sequence
from typing import Any

import mpi4py
import numpy as np
from numpy.typing import NDArray

# One thread of a rank, the main one, speaks to MPI.
mpi4py.rc.thread_level = "funneled"

from mpi4py import MPI  # noqa: E402 (its import starts MPI, with what was set above)

from partrain.errors import FailedRun, PartrainError  # noqa: E402
from partrain.parallel.machine import available_processors  # noqa: E402

# How long a wait spins, giving way to whoever wants the processor, before it sleeps; and for how long it then sleeps.
SPIN_SECONDS = 0.0002
NAP_SECONDS = 0.00005
# How long a rank waits for others that say nothing at all. They may be compiling, or drawing digits.
HANG_SECONDS = 900.0
# The same, where mpiexec is gone: others may be gone with it, and nobody is there to tell.
ORPHAN_SECONDS = 3.0
# How long a rank that has failed listens whether rank 0 says the same, and then waits for the others to save and to
# come to their end.
ECHO_SECONDS = 0.3
FAREWELL_SECONDS = 3.0
# The longest message of a rank that fails, and how it is laid out: exit code, then text.
NOTICE_BYTES = 8192
_EXIT_CODE = struct.Struct("<q")

_NOTICE_TAG = 1


class RankFailed(PartrainError):
    """Another rank has failed; that one says why."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class MpiGroup:
    """All ranks of this job, as one of them sees them.

    Attributes
    ----------
    rank, size : this rank's number, from 0 on, and how many there are.
    num_processors : this rank's part of those of its host, which it may share with other ranks.
    name : this rank's number and host, for people.
    """

    def __init__(self) -> None:
        self._steps, self._notices = MPI.COMM_WORLD.Dup(), MPI.COMM_WORLD.Dup()
        self.rank, self.size = self._steps.Get_rank(), self._steps.Get_size()
        host = MPI.COMM_WORLD.Split_type(MPI.COMM_TYPE_SHARED)
        self.num_processors = max(1, available_processors() // host.Get_size())
        host.Free()
        self.name = f"rank {self.rank} on {socket.gethostname()}"
        self._parent = os.getppid()
        self._sent: list[Any] = []
        self._heard: dict[int, tuple[int, str]] = {}
        self._farewell: MPI.Request | None = None
        self._is_waiting = False

    @property
    def launcher_is_gone(self) -> bool:
        """Whether mpiexec, or its daemon on this host, has ended before this rank."""
        return os.getppid() != self._parent

    def exchange(self, buffer: NDArray[np.uint8], counts: Sequence[int], places: Sequence[int]) -> None:
        """Fill `buffer` with the pieces of all ranks; this rank's is in it already.

        Parameters
        ----------
        buffer : uint8; written but for this rank's piece.
        counts, places : each rank's number of bytes, and where they begin.
        """
        self._wait(self._steps.Iallgatherv(MPI.IN_PLACE, [buffer, counts, places, MPI.BYTE]))

    def gather(self, fact: Any) -> list[Any]:
        """Return what each rank gave, in the order of the ranks; it must fit into JSON."""
        text = json.dumps(fact).encode()
        counts = np.zeros(self.size, np.int64)
        counts[self.rank] = len(text)
        self.exchange(counts.view(np.uint8), [8] * self.size, [8 * k for k in range(self.size)])
        places = np.concatenate([[0], np.cumsum(counts)])
        buffer = np.empty(int(places[-1]), np.uint8)
        buffer[places[self.rank] : places[self.rank + 1]] = np.frombuffer(text, np.uint8)
        self.exchange(buffer, counts.tolist(), places[:-1].tolist())
        return [json.loads(buffer[places[k] : places[k + 1]].tobytes()) for k in range(self.size)]

    def broadcast(self, content: bytes | None) -> bytes:
        """Return rank 0's bytes on all ranks; `content` is of rank 0 alone."""
        size = np.zeros(1, np.int64)
        if content is not None:
            size[0] = len(content)
        self._wait(self._steps.Ibcast([size, MPI.INT64_T], root=0))
        buffer = np.empty(int(size[0]), np.uint8)
        if content is not None:
            buffer[:] = np.frombuffer(content, np.uint8)
        # In parts, for MPI counts in 32 bits.
        for first in range(0, len(buffer), 2**30):
            self._wait(self._steps.Ibcast([buffer[first : first + 2**30], MPI.BYTE], root=0))
        return buffer.tobytes()

    def assemble(self) -> None:
        """Wait for all ranks."""
        self._wait(self._steps.Ibarrier())

    def meet(self) -> None:
        """Wait for all ranks, at the end of a job that went well.

        Raises
        ------
        RankFailed
            Another rank failed meanwhile.
        """
        self._farewell = self._notices.Ibarrier()
        self._wait(self._farewell)

    def tell(self, error: BaseException, exit_code: int) -> bool:
        """Tell the other ranks that this one fails.

        Returns
        -------
        Whether to tell people, too: not if that is another rank's to do. What all ranks find out by themselves,
        such as a loss that is not finite, rank 0 says for all.
        """
        if isinstance(error, RankFailed):
            return False
        text = str(error).encode()[: NOTICE_BYTES - _EXIT_CODE.size]
        notice = np.frombuffer(_EXIT_CODE.pack(exit_code) + text, np.uint8)
        others = (rank for rank in range(self.size) if rank != self.rank)
        self._sent = [self._notices.Isend([notice, MPI.BYTE], dest=rank, tag=_NOTICE_TAG) for rank in others]
        deadline = time.monotonic() + ECHO_SECONDS
        while self.rank > 0 and time.monotonic() < deadline:
            self._hear_notices()
            if self._heard.get(0) == (exit_code, text.decode(errors="replace")):
                return False
            time.sleep(NAP_SECONDS)
        return True

    def part(self) -> None:
        """Wait, a moment at most, until all ranks have come to their end: rank 0 may still be saving."""
        if self._farewell is None:
            self._farewell = self._notices.Ibarrier()
        deadline = time.monotonic() + FAREWELL_SECONDS
        while not self._farewell.Test() and time.monotonic() < deadline:
            self._hear_notices()
            time.sleep(NAP_SECONDS)

    def leave(self, exit_code: int) -> None:
        """End this process at once if MPI cannot be left in order; the whole job ends with it."""
        if self.launcher_is_gone:
            os._exit(exit_code)
        if self._is_waiting or (self._farewell is not None and not self._farewell.Test()):
            MPI.COMM_WORLD.Abort(exit_code)
        return None

    def _wait(self, request: Any) -> None:
        begin = time.monotonic()
        self._is_waiting = True
        while not request.Test():
            waited = time.monotonic() - begin
            if waited < SPIN_SECONDS:
                os.sched_yield()
                continue
            self._hear_notices()
            if self._heard:
                rank = min(self._heard)
                exit_code, text = self._heard[rank]
                raise RankFailed(f"rank {rank} failed: {text}", exit_code)
            if waited > HANG_SECONDS or (waited > ORPHAN_SECONDS and self.launcher_is_gone):
                why = "mpiexec is gone, and" if self.launcher_is_gone else "one of them hangs, or"
                raise FailedRun(f"waited {waited:.0f} s for the other ranks: {why} they do not answer")
            time.sleep(NAP_SECONDS)
        self._is_waiting = False

    def _hear_notices(self) -> None:
        """Take note of the other ranks that say that they failed."""
        status = MPI.Status()
        while self._notices.Iprobe(MPI.ANY_SOURCE, _NOTICE_TAG, status):
            notice = np.empty(status.Get_count(MPI.BYTE), np.uint8)
            self._notices.Recv([notice, MPI.BYTE], status.Get_source(), _NOTICE_TAG)
            content = notice.tobytes()
            text = content[_EXIT_CODE.size :].decode(errors="replace")
            self._heard[status.Get_source()] = (_EXIT_CODE.unpack_from(content)[0], text)
