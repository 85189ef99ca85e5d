"""Communication between the ranks of an MPI job. Its import starts MPI.

MPI only moves bytes; it never sums. All calls are non-blocking, and this module waits for their completion itself:

- MPI busy-waits and occupies a core that a worker could use. A waiting partrain rank yields the core at once and, after
  0.2 ms, sleeps 50 µs at a time.
- A blocking MPI call reacts to no signal, and does not return when another rank has failed. This wait does both.

A rank that fails tells the others, and each of them gives up its wait. At the end all ranks meet once more, so that
rank 0 can save the run before the job ends.

A rank that waits for seconds asks the others whether they are alive (parallel.mpi.liveness). A second thread answers
while the main thread does other work; a lock makes sure that only one of the two threads calls MPI at a time.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from partrain.errors import ConfigError, FailedRun, PartrainError
from partrain.parallel.mpi import liveness
from partrain.parallel.mpi.communicators import MPI, Communicators, raising_deaths, require_survival
from partrain.parallel.mpi.launcher import end_launcher, remove_segments
from partrain.parallel.mpi.rank_death import RankDied
from partrain.system.machine import available_processors
from partrain.system.process_limits import reporting_process_limit

# How long a wait spins, yielding the core, before it sleeps; and how long it then sleeps at a time.
SPIN_SECONDS = 0.0002
NAP_SECONDS = 0.00005
# How often the second thread looks for questions.
ANSWER_SECONDS = 0.25
# How long a rank waits for the others after mpiexec has ended: they may have ended too, and nothing reports that.
ORPHAN_SECONDS = 3.0
# How long a failed rank waits to see whether a lower rank reports the same failure, and how long it then waits for the
# others to save and to finish.
ECHO_SECONDS = 0.3
FINISH_SECONDS = 3.0
# The maximum length of a failure notice: the exit code, then text. An answer is one number: whether the rank waits too.
NOTICE_BYTES = 8192
_NUMBER = struct.Struct("<q")

_NOTICE_TAG, _QUESTION_TAG, _ANSWER_TAG = 1, 2, 3


class RankFailed(PartrainError):
    """Another rank has failed, and reports the cause itself."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Communicator:
    """This rank's connection to all ranks of the job.

    Parameters
    ----------
    warn : called with a warning when this rank waits long for others.
    elastic : whether the job goes on after a rank's death. Then all methods that communicate raise RankDied after one,
        and `recover` makes them work again.

    Attributes
    ----------
    rank, size : this rank's number, counted from 0, and the number of ranks. A death changes them.
    num_processors : this rank's share of the processors of its host.
    name : this rank's number and host, for messages; a death does not change it.
    has_lost_ranks : whether a rank has died.

    Side effects
    ------------
    Starts a thread; `close` ends it.
    """

    def __init__(self, warn: Callable[[str], None], *, elastic: bool = False) -> None:
        if MPI.Query_thread() < MPI.THREAD_SERIALIZED:
            raise ConfigError(
                "--engine mpi: this MPI allows calls from only one thread of a process, and partrain makes "
                "calls from two, one at a time; use an MPI that supports threads (MPI_THREAD_SERIALIZED)"
            )
        if elastic:
            require_survival()
        self._warn, self._elastic = warn, elastic
        self._number = MPI.COMM_WORLD.Get_rank()  # in messages; `rank` may change
        self.name = f"rank {self._number} on {socket.gethostname()}"
        self._names = [f"rank {rank}" for rank in range(MPI.COMM_WORLD.Get_size())]
        self.has_lost_ranks = False
        self._communicators = Communicators(elastic=elastic)
        # Of operations that a death interrupted: MPI may still write into the buffers of their requests.
        self._abandoned: list[MPI.Request] = []
        self._begin()
        self._parent = os.getppid()
        # Held by the thread that calls MPI. The main thread holds it for as long as it waits.
        self._mpi_lock = threading.Lock()
        self._closed = threading.Event()
        self._answering = threading.Thread(target=self._answer, name="partrain answers other ranks", daemon=True)
        with reporting_process_limit():
            self._answering.start()

    def _begin(self) -> None:
        """Begin to communicate with the ranks of the communicators."""
        self._data, self._notices = self._communicators.data, self._communicators.notices
        self.rank, self.size = self._data.Get_rank(), self._data.Get_size()
        self.num_processors = max(1, available_processors() // self._communicators.num_on_host)
        self._sent: list[MPI.Request] = []
        self._failures: dict[int, tuple[int, str]] = {}
        self._final_barrier: MPI.Request | None = None
        # The request of the current wait, or of one that was given up: MPI may still write into its buffer.
        self._pending: MPI.Request | None = None
        self._liveness: liveness.LivenessCheck | None = None
        # Whether all ranks know already that one has died.
        self._must_renew = False

    @property
    def launcher_has_ended(self) -> bool:
        """Whether mpiexec, or its daemon on this host, has ended before this rank."""
        return os.getppid() != self._parent

    def allgatherv(self, buffer: NDArray[np.uint8], counts: Sequence[int], offsets: Sequence[int]) -> None:
        """Fill `buffer` with the pieces of all ranks; this rank's piece is in it already.

        Parameters
        ----------
        buffer : uint8; everything except this rank's piece is written.
        counts, offsets : the number of bytes of each rank, and where they begin.
        """
        self._complete(lambda: self._data.Iallgatherv(MPI.IN_PLACE, [buffer, counts, offsets, MPI.BYTE]))

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
        self._complete(lambda: self._data.Ibcast([size, MPI.INT64_T], root=0))
        buffer = np.empty(int(size[0]), np.uint8)
        if content is not None:
            buffer[:] = np.frombuffer(content, np.uint8)
        # In parts, because MPI counts in 32 bits.
        for first in range(0, len(buffer), 2**30):
            part = buffer[first : first + 2**30]
            self._complete(functools.partial(self._data.Ibcast, [part, MPI.BYTE], root=0))
        return buffer.tobytes()

    def barrier(self) -> None:
        """Wait until all ranks have called this."""
        self._complete(self._data.Ibarrier)

    def exchange_names(self) -> None:
        """Exchange the names of all ranks, for messages."""
        self._names = self.allgather(self.name)

    def finish(self) -> None:
        """Wait for all ranks at the end of a successful job.

        Raises
        ------
        RankFailed
            Another rank failed meanwhile.
        RankDied
            Another rank died meanwhile. All ranks raise this, or none does.
        """
        died = False
        try:
            self._complete(self._begin_final_barrier)
        except RankDied:
            died = True
        if self._elastic:
            with self._mpi_lock:
                self._must_renew = not self._communicators.agree(succeeded=not died)
            if self._must_renew:
                raise RankDied

    def recover(self) -> list[str]:
        """Go on without the ranks that have died. Each survivor must call this when it gets RankDied.

        Returns
        -------
        The names of the dead ranks. `rank`, `size` and `num_processors` are those of the smaller job.
        """
        with self._mpi_lock:
            if not self._must_renew:
                self._communicators.agree(succeeded=False)
            dead = self._communicators.renew()
            names = self._names
            self._names = [name for rank, name in enumerate(names) if rank not in dead]
            self._abandoned += [*self._sent, *filter(None, (self._pending, self._final_barrier))]
            self._begin()
            self.has_lost_ranks = True
        return [names[rank] for rank in dead]

    def report_failure(self, error: BaseException, exit_code: int) -> bool:
        """Tell the other ranks that this rank fails.

        Returns
        -------
        Whether this rank should also print the error. It should not if another rank prints it: if several ranks find
        the same error, such as a loss that is not finite, the lowest of them prints it for all.
        """
        if isinstance(error, RankFailed):
            return False
        text = str(error).encode()[: NOTICE_BYTES - _NUMBER.size]
        notice = (exit_code, text.decode(errors="replace"))
        with self._mpi_lock, self._suppressing_deaths():
            for other in self._others():
                self._send(_NUMBER.pack(exit_code) + text, other, _NOTICE_TAG)
            deadline = time.monotonic() + ECHO_SECONDS
            while self.rank > 0 and time.monotonic() < deadline:
                self._receive_notices()
                if any(self._failures.get(rank) == notice for rank in range(self.rank)):
                    return False
                time.sleep(NAP_SECONDS)
        return True

    @contextlib.contextmanager
    def _suppressing_deaths(self) -> Iterator[None]:
        with contextlib.suppress(RankDied), raising_deaths(elastic=self._elastic):
            yield

    def await_others(self) -> None:
        """Wait for at most FINISH_SECONDS until all ranks have finished: rank 0 may still be saving."""
        with self._mpi_lock, self._suppressing_deaths():
            barrier = self._final_barrier or self._begin_final_barrier()
            deadline = time.monotonic() + FINISH_SECONDS
            while not barrier.Test() and time.monotonic() < deadline:
                self._receive_notices()
                time.sleep(NAP_SECONDS)

    def abort_if_stuck(self, exit_code: int) -> None:
        """Abort the whole job if MPI cannot be finalised; otherwise return, or end this process if a rank has died."""
        if self.launcher_has_ended:
            remove_segments()
            os._exit(exit_code)
        if self.has_lost_ranks:
            self._exit_without_mpi(exit_code)
        with self._mpi_lock, self._suppressing_deaths():
            a_rank_hangs = self._final_barrier is not None and not self._final_barrier.Test()
            if a_rank_hangs:
                end_launcher(self._parent)
            if a_rank_hangs or self._pending is not None:
                MPI.COMM_WORLD.Abort(exit_code)

    def close(self) -> None:
        """Stop answering the other ranks."""
        self._closed.set()
        self._answering.join()

    def leave_at_exit(self) -> None:
        """If a rank has died, let this process end without finalising MPI, which may wait for the dead; exit code 0."""
        if self.has_lost_ranks:
            atexit.register(self._exit_without_mpi, 0)

    def _exit_without_mpi(self, exit_code: int) -> NoReturn:
        end_launcher(self._parent)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):  # it is closed
                stream.flush()
        os._exit(exit_code)

    def _begin_final_barrier(self) -> MPI.Request:
        self._final_barrier = self._notices.Ibarrier()
        return self._final_barrier

    def _complete(self, start: Callable[[], MPI.Request]) -> None:
        """Start an operation of all ranks, and wait until it is complete.

        Raises
        ------
        RankFailed, FailedRun
            Another rank has failed, or hangs.
        RankDied
            Another rank has died, in an elastic job; the operations of all ranks then fail.
        """
        with self._mpi_lock:
            try:
                with raising_deaths(elastic=self._elastic):
                    self._wait(start())
            except RankDied:
                self._communicators.revoke()
                raise

    def _wait(self, request: MPI.Request) -> None:
        self._pending = request
        begin = time.monotonic()
        while not request.Test():
            waited = time.monotonic() - begin
            if waited < SPIN_SECONDS:
                os.sched_yield()
                continue
            self._receive_notices()
            self._check_others(waited)
            time.sleep(NAP_SECONDS)
        self._pending = self._liveness = None

    def _check_others(self, waited_s: float) -> None:
        """Give up a wait that will not end.

        Raises
        ------
        RankFailed, FailedRun
            Another rank has failed, or hangs.
        """
        if self._failures:
            rank = min(self._failures)
            exit_code, text = self._failures[rank]
            raise RankFailed(f"{self._names[rank].partition(' on ')[0]} failed: {text}", exit_code)
        if waited_s > ORPHAN_SECONDS and self.launcher_has_ended:
            raise FailedRun(f"waited {waited_s:.0f} s for the other ranks: mpiexec is gone, and they do not answer")
        if waited_s < liveness.ASK_SECONDS:
            return
        now = time.monotonic()
        if self._liveness is None:
            self._liveness = liveness.LivenessCheck(self.rank, self._names, now)
        if self._liveness.must_ask(now):
            for other in self._others():
                self._send(b"", other, _QUESTION_TAG)
            self._liveness.check(self._warn)

    def _answer(self) -> None:
        """Answer questions while the main thread does other work and does not receive them."""
        while not self._closed.wait(ANSWER_SECONDS):
            if self._mpi_lock.acquire(blocking=False):
                try:
                    self._receive_notices()
                except MPI.Exception:  # the main thread gets the same error, and handles it
                    if not self._elastic:
                        return
                finally:
                    self._mpi_lock.release()

    def _others(self) -> Iterator[int]:
        return (rank for rank in range(self.size) if rank != self.rank)

    def _send(self, content: bytes, rank: int, tag: int) -> None:
        self._sent = [request for request in self._sent if not request.Test()]
        self._sent.append(self._notices.Isend([np.frombuffer(content, np.uint8), MPI.BYTE], dest=rank, tag=tag))

    def _receive_notices(self) -> None:
        """Receive messages of other ranks: failure notices, questions whether this rank is alive, and answers."""
        status = MPI.Status()
        while self._notices.Iprobe(MPI.ANY_SOURCE, MPI.ANY_TAG, status):
            received, rank, tag = np.empty(status.Get_count(MPI.BYTE), np.uint8), status.Get_source(), status.Get_tag()
            self._notices.Recv([received, MPI.BYTE], rank, tag)
            content = received.tobytes()
            if tag == _QUESTION_TAG:
                self._send(_NUMBER.pack(self._pending is not None), rank, _ANSWER_TAG)
            elif tag == _ANSWER_TAG:
                if self._liveness is not None:
                    self._liveness.record_answer(rank, bool(_NUMBER.unpack(content)[0]))
            else:
                text = content[_NUMBER.size :].decode(errors="replace")
                self._failures[rank] = (_NUMBER.unpack_from(content)[0], text)
