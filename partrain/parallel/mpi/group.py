"""The processes ("ranks") that MPI joins: they exchange bytes, meet, and end together. Alone in importing mpi4py.

MPI only moves bytes here; it never adds. Every call is one that does not block, and is asked for its end:

- MPI's own waits spin on a whole core, which a worker could use. After SPIN_SECONDS this one sleeps in between.
- MPI's own waits hear of no signal, and do not end when another rank has failed. This one does.

A rank that fails tells the others so, each of which then gives up its wait, whatever it waits for. All meet once more
at the end, so that the one that keeps the run can save it first.

A rank that waits for long asks the others whether they are there. While the main thread of a rank does something else,
a second one answers: it speaks to MPI only then, and so that the two never do at once.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mpi4py
import numpy as np
from numpy.typing import NDArray

# One thread of a rank at a time speaks to MPI.
mpi4py.rc.thread_level = "serialized"

from mpi4py import MPI  # noqa: E402 (its import starts MPI, with what was set above)

from partrain.errors import ConfigError, FailedRun, PartrainError  # noqa: E402
from partrain.parallel.mpi import roll_call  # noqa: E402
from partrain.parallel.mpi.launcher import end_launcher, remove_segments  # noqa: E402
from partrain.system.machine import available_processors  # noqa: E402

# How long a wait spins, giving way to whoever wants the processor, before it sleeps; and for how long it then sleeps.
SPIN_SECONDS = 0.0002
NAP_SECONDS = 0.00005
# How often the second thread looks whether somebody asks.
ANSWER_SECONDS = 0.25
# How long a rank waits for others where mpiexec is gone: they may be gone with it, and nobody is there to tell.
ORPHAN_SECONDS = 3.0
# How long a rank that has failed listens whether rank 0 says the same, and then waits for the others to save and to
# come to their end.
ECHO_SECONDS = 0.3
FAREWELL_SECONDS = 3.0
# The longest message of a rank that fails: its exit code, then text. An answer is a number alone: does it wait, too?
NOTICE_BYTES = 8192
_NUMBER = struct.Struct("<q")

_NOTICE_TAG, _QUESTION_TAG, _ANSWER_TAG = 1, 2, 3


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

    Parameters
    ----------
    warn : told of others that are waited for.

    Side effects
    ------------
    Starts a thread; `close` ends it.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        if MPI.Query_thread() < MPI.THREAD_SERIALIZED:
            raise ConfigError(
                "--engine mpi: this MPI lets only one thread of a process speak to it, and partrain has two that take "
                "turns; use an MPI that was built for threads (MPI_THREAD_SERIALIZED)"
            )
        self._warn = warn
        self._steps, self._notices = MPI.COMM_WORLD.Dup(), MPI.COMM_WORLD.Dup()
        self.rank, self.size = self._steps.Get_rank(), self._steps.Get_size()
        host = MPI.COMM_WORLD.Split_type(MPI.COMM_TYPE_SHARED)
        self.num_processors = max(1, available_processors() // host.Get_size())
        host.Free()
        self.name = f"rank {self.rank} on {socket.gethostname()}"
        self._names = [f"rank {rank}" for rank in range(self.size)]
        self._parent = os.getppid()
        self._sent: list[MPI.Request] = []
        self._heard: dict[int, tuple[int, str]] = {}
        self._farewell: MPI.Request | None = None
        # What is waited for, and where a wait was given up, was: MPI may still write into its buffer.
        self._pending: MPI.Request | None = None
        self._roll_call: roll_call.RollCall | None = None
        # Held by the thread that speaks to MPI; the main one holds it for as long as it waits.
        self._speaking = threading.Lock()
        self._closed = threading.Event()
        self._answering = threading.Thread(target=self._answer, name="partrain answers other ranks", daemon=True)
        self._answering.start()

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
        with self._speaking:
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
        with self._speaking:
            self._wait(self._steps.Ibcast([size, MPI.INT64_T], root=0))
        buffer = np.empty(int(size[0]), np.uint8)
        if content is not None:
            buffer[:] = np.frombuffer(content, np.uint8)
        # In parts, for MPI counts in 32 bits.
        for first in range(0, len(buffer), 2**30):
            with self._speaking:
                self._wait(self._steps.Ibcast([buffer[first : first + 2**30], MPI.BYTE], root=0))
        return buffer.tobytes()

    def assemble(self) -> None:
        """Wait for all ranks."""
        with self._speaking:
            self._wait(self._steps.Ibarrier())

    def greet(self) -> None:
        """Tell the others this rank's name, and learn theirs, for messages."""
        self._names = self.gather(self.name)

    def meet(self) -> None:
        """Wait for all ranks, at the end of a job that went well.

        Raises
        ------
        RankFailed
            Another rank failed meanwhile.
        """
        with self._speaking:
            self._farewell = self._notices.Ibarrier()
            self._wait(self._farewell)

    def tell(self, error: BaseException, exit_code: int) -> bool:
        """Tell the other ranks that this one fails.

        Returns
        -------
        Whether to tell people, too: not if that is another rank's to do. What several ranks find out by themselves,
        such as a loss that is not finite, the first of them says for all.
        """
        if isinstance(error, RankFailed):
            return False
        text = str(error).encode()[: NOTICE_BYTES - _NUMBER.size]
        said = (exit_code, text.decode(errors="replace"))
        with self._speaking:
            for other in self._others():
                self._send(_NUMBER.pack(exit_code) + text, other, _NOTICE_TAG)
            deadline = time.monotonic() + ECHO_SECONDS
            while self.rank > 0 and time.monotonic() < deadline:
                self._hear()
                if any(self._heard.get(rank) == said for rank in range(self.rank)):
                    return False
                time.sleep(NAP_SECONDS)
        return True

    def part(self) -> None:
        """Wait, a moment at most, until all ranks have come to their end: rank 0 may still be saving."""
        with self._speaking:
            if self._farewell is None:
                self._farewell = self._notices.Ibarrier()
            deadline = time.monotonic() + FAREWELL_SECONDS
            while not self._farewell.Test() and time.monotonic() < deadline:
                self._hear()
                time.sleep(NAP_SECONDS)

    def leave(self, exit_code: int) -> None:
        """End this process at once if MPI cannot be left in order; the whole job ends with it."""
        if self.launcher_is_gone:
            remove_segments()
            os._exit(exit_code)
        with self._speaking:
            somebody_hangs = self._farewell is not None and not self._farewell.Test()
            if somebody_hangs:
                end_launcher(self._parent)
            if somebody_hangs or self._pending is not None:
                MPI.COMM_WORLD.Abort(exit_code)

    def close(self) -> None:
        """Answer no more."""
        self._closed.set()
        self._answering.join()

    def _wait(self, request: MPI.Request) -> None:
        self._pending = request
        begin = time.monotonic()
        while not request.Test():
            waited = time.monotonic() - begin
            if waited < SPIN_SECONDS:
                os.sched_yield()
                continue
            self._hear()
            self._require_hope(waited)
            time.sleep(NAP_SECONDS)
        self._pending = self._roll_call = None

    def _require_hope(self, waited: float) -> None:
        """Give up a wait that will not end.

        Raises
        ------
        RankFailed, FailedRun
            Another rank has failed, or hangs.
        """
        if self._heard:
            rank = min(self._heard)
            exit_code, text = self._heard[rank]
            raise RankFailed(f"rank {rank} failed: {text}", exit_code)
        if waited > ORPHAN_SECONDS and self.launcher_is_gone:
            raise FailedRun(f"waited {waited:.0f} s for the other ranks: mpiexec is gone, and they do not answer")
        if waited < roll_call.ASK_SECONDS:
            return
        now = time.monotonic()
        if self._roll_call is None:
            self._roll_call = roll_call.RollCall(self.rank, self._names, now)
        if self._roll_call.must_ask(now):
            for other in self._others():
                self._send(b"", other, _QUESTION_TAG)
            self._roll_call.judge(self._warn)

    def _answer(self) -> None:
        """Answer questions while the main thread does not wait, and so does not hear them."""
        while not self._closed.wait(ANSWER_SECONDS):
            if self._speaking.acquire(blocking=False):
                try:
                    self._hear()
                except MPI.Exception:
                    return  # the main thread meets it as well, and says so
                finally:
                    self._speaking.release()

    def _others(self) -> Iterator[int]:
        return (rank for rank in range(self.size) if rank != self.rank)

    def _send(self, content: bytes, rank: int, tag: int) -> None:
        self._sent = [request for request in self._sent if not request.Test()]
        self._sent.append(self._notices.Isend([np.frombuffer(content, np.uint8), MPI.BYTE], dest=rank, tag=tag))

    def _hear(self) -> None:
        """Receive what the other ranks say: that they failed, whether this one is there, that they are."""
        status = MPI.Status()
        while self._notices.Iprobe(MPI.ANY_SOURCE, MPI.ANY_TAG, status):
            received, rank, tag = np.empty(status.Get_count(MPI.BYTE), np.uint8), status.Get_source(), status.Get_tag()
            self._notices.Recv([received, MPI.BYTE], rank, tag)
            content = received.tobytes()
            if tag == _QUESTION_TAG:
                self._send(_NUMBER.pack(self._pending is not None), rank, _ANSWER_TAG)
            elif tag == _ANSWER_TAG:
                if self._roll_call is not None:
                    self._roll_call.note(rank, bool(_NUMBER.unpack(content)[0]))
            else:
                text = content[_NUMBER.size :].decode(errors="replace")
                self._heard[rank] = (_NUMBER.unpack_from(content)[0], text)
