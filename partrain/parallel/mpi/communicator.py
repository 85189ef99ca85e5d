"""Communication between the ranks of an MPI job. Its import starts MPI.

All calls are non-blocking, and this module waits for their completion itself:

- MPI busy-waits and occupies a core that a worker could use. A waiting partrain rank yields the core at once and, after
  0.2 ms, sleeps 50 µs at a time.
- A blocking MPI call reacts to no signal, and does not return when another rank has failed. This wait does both.

The last ranks may be spares. They take part in the beginning of the job and then wait, until a death makes a spare a
working rank or rank 0 tells them that the job ends.

A rank that fails tells the others, and each of them gives up its wait. At the end all ranks meet once more, so that
rank 0 can save the run before the job ends.

A rank that waits for seconds asks the others whether they are alive (parallel.mpi.liveness). A second thread answers
while the main thread does other work; a lock makes sure that only one of the two threads calls MPI at a time.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.errors import ConfigError
from partrain.parallel.mpi import launcher, liveness
from partrain.parallel.mpi.collectives import Collectives
from partrain.parallel.mpi.communicators import MPI, Communicators, raising_deaths, require_threads, why_not_elastic
from partrain.parallel.mpi.cut_off import own_addresses
from partrain.parallel.mpi.exchange import Pieces
from partrain.parallel.mpi.notices import Notices
from partrain.parallel.mpi.patience import Patience, RankPlace
from partrain.parallel.mpi.rank_death import RankDied, RankFailed, Recovery
from partrain.system.machine import available_processors
from partrain.system.process_limits import reporting_process_limit
from partrain.system.signals import Interruption

# How long a wait spins, yielding the core, before it sleeps; and how long it then sleeps at a time.
SPIN_SECONDS = 0.0002
NAP_SECONDS = 0.00005
# How long a spare sleeps at a time.
SPARE_NAP_SECONDS = 0.01
# How often the second thread looks for questions.
ANSWER_SECONDS = 0.25
# How long a failed rank waits for the same failure of a lower rank, and then for the others to save and to finish.
ECHO_SECONDS = 0.3
FINISH_SECONDS = 3.0
# How long rank 0 waits for the states of the others after a failure: a rank that fails still answers meanwhile.
COLLECT_SECONDS = 2.0


class Communicator:
    """This rank's connection to all ranks of the job.

    Parameters
    ----------
    warn : called with a warning when this rank waits long for others.
    received : the signal that this rank has received. A spare passes it on to rank 0.
    heartbeat : shows that this rank runs. If it is given, and MPI can do that, the job is elastic: it goes on after a
        rank's death. After one, all methods that communicate raise RankDied, and `recover` makes them work again.
    num_spares : the number of ranks that wait until one is needed.

    Attributes
    ----------
    rank, size : this rank's number, counted from 0, and the number of working ranks. A death changes them.
    everyone : the operations of all living ranks, also of spares.
    num_processors : this rank's share of the processors of its host.
    name : this rank's number and host, for messages; a death does not change it.
    has_lost_ranks : whether a rank has died.

    Side effects
    ------------
    Starts a thread; `close` ends it.
    """

    def __init__(
        self, warn: Callable[[str], None], received: Interruption, heartbeat: launcher.Heartbeat | None, num_spares: int
    ) -> None:
        require_threads()
        elastic = heartbeat is not None and why_not_elastic() is None
        self._warn, self._received, self._heartbeat, self._elastic = warn, received, heartbeat, elastic
        self._number = MPI.COMM_WORLD.Get_rank()  # in messages; `rank` may change
        self.name = f"rank {self._number} on {socket.gethostname()}"
        self.has_lost_ranks = False
        self._communicators = Communicators(elastic=elastic, num_spares=num_spares)
        # Of operations that a death interrupted: MPI may still write into the buffers of their requests.
        self._abandoned: list[object] = []
        self._parent = os.getppid()
        self._begin([RankPlace(f"rank {rank}") for rank in range(MPI.COMM_WORLD.Get_size())])
        self._stops = liveness.Stops()
        # Held by the thread that calls MPI. The main thread holds it for as long as it waits.
        self._mpi_lock = threading.Lock()
        self._closed = threading.Event()
        self._answering = threading.Thread(target=self._answer, name="partrain answers other ranks", daemon=True)
        with reporting_process_limit():
            self._answering.start()

    def _begin(self, places: Sequence[RankPlace]) -> None:
        """Begin to communicate with the ranks of the communicators, which are at these places."""
        made = self._communicators
        self.everyone = Collectives(made.everyone, self._complete)
        self._working = Collectives(made.data, self._complete)
        self.rank, self.size = self.everyone.rank, made.num_working
        self._notices = Notices(
            made.notices, made.num_working, lambda: self.is_spare or self._pending is not None, self._received
        )
        self._patience = Patience(
            places, self._notices, self._warn, lambda: self.launcher_has_ended, self._leave, elastic=self._elastic
        )
        self.num_processors = max(1, available_processors() // made.num_on_host)
        self._final_barrier: MPI.Request | None = None
        # The request of the current wait, or of one that was given up: MPI may still write into its buffer.
        self._pending: MPI.Request | None = None
        # Whether all ranks know already that one has died.
        self._must_renew = False

    def require_elastic(self, num_spares: int) -> None:
        """Check that the job can go on after a rank's death, and that ranks are left besides the spares.

        Raises
        ------
        ConfigError
            It cannot, or all ranks would be spares.
        """
        if (missing := why_not_elastic()) is not None:
            raise ConfigError(f"--elastic: {missing}")
        launcher.require_working_ranks(num_spares, self.everyone.size)

    @property
    def is_spare(self) -> bool:
        """Whether this rank waits until it is needed."""
        return self.rank >= self.size

    @property
    def launcher_has_ended(self) -> bool:
        """Whether mpiexec, or its daemon on this host, has ended before this rank."""
        return os.getppid() != self._parent

    def allgatherv(self, buffer: NDArray[np.uint8], counts: Sequence[int], offsets: Sequence[int]) -> None:
        """Fill `buffer` with the pieces of all working ranks; see `Collectives`."""
        self._working.allgatherv(buffer, counts, offsets)

    def alltoallv(self, sent: Pieces, received: Pieces) -> None:
        """Send each working rank its piece of `sent`, and fill `received` with the pieces from all of them."""
        self._working.alltoallv(sent, received)

    def offer(self, state: Callable[[int], bytes | None]) -> None:
        """Let rank 0 collect a state of this rank.

        Parameters
        ----------
        state : called with a step, while this rank waits or fails; returns the state after that step. None: this rank
            has that of another step, and is asked again.
        """
        self._notices.states.offered = state

    def collect(self, step: int) -> dict[int, bytes]:
        """Return what the other ranks offer of the state after `step`, by rank; only rank 0 calls this.

        After a failure, this waits for COLLECT_SECONDS at most, and returns what has come.

        Raises
        ------
        FailedRun, RankDied
            A rank hangs, or has died.
        """
        with self._failing_together():
            self._notices.states.begin(step, range(1, self.size))
            begin, deadline = time.monotonic(), math.inf
            while len(states := self._notices.states.received()) < self.size - 1 and time.monotonic() < deadline:
                self._notices.receive()
                if self._notices.failures or self._patience.is_over:
                    deadline = min(deadline, time.monotonic() + COLLECT_SECONDS)
                else:
                    self._patience.check(time.monotonic() - begin)
                time.sleep(NAP_SECONDS)
            self._notices.liveness = None
            return states

    def allgather(self, value: Any) -> list[Any]:
        """Return the value that each working rank passed; see `Collectives`."""
        return self._working.allgather(value)

    def exchange_names(self) -> None:
        """Exchange the names of all ranks, for messages."""
        gathered = self.everyone.allgather([self.name, own_addresses()])
        self._patience.places = [RankPlace(name, frozenset(addresses)) for name, addresses in gathered]

    def stand_by(self) -> int:
        """Wait, as a spare, until rank 0 tells that the job ends; pass a signal on to rank 0.

        Returns
        -------
        The signal that ends the job; 0 if it is completed.

        Raises
        ------
        RankFailed, FailedRun
            Another rank has failed, or hangs.
        RankDied
            A working rank has died. This rank may be needed in its place.
        """
        with self._failing_together():
            begin = time.monotonic()
            while (ended_by := self._notices.ended_by) is None:
                self._notices.receive()
                self._notices.pass_on_signal()
                self._patience.check(time.monotonic() - begin)
                time.sleep(SPARE_NAP_SECONDS)
            self._notices.liveness = None
            return ended_by

    def finish(self, ended_by: int) -> None:
        """Wait for all ranks at the end of a job that did not fail.

        Parameters
        ----------
        ended_by : the signal that ends the job; 0 if it is completed.

        Raises
        ------
        RankFailed
            Another rank failed meanwhile.
        RankDied
            Another rank died meanwhile. All ranks raise this, or none does.
        """
        died = False
        try:
            if self.is_spare:
                self.stand_by()
            else:
                self._working.barrier()
        except RankDied:
            died = True
        if self._elastic:
            with self._mpi_lock:
                if self.rank == 0 and not died:
                    self._notices.end_spares(ended_by)
                self._must_renew = not self._communicators.agree(succeeded=not died)
            if self._must_renew:
                raise RankDied

    def recover(self) -> Recovery:
        """Go on without the ranks that have died. Each survivor must call this when it gets RankDied.

        `rank`, `size` and `num_processors` change.
        """
        with self._mpi_lock:
            if not self._must_renew:
                self._communicators.agree(succeeded=False)
            dead, reported = self._communicators.renew(), self._patience.reported_dead
            before, num_worked = self._patience.places, self.size
            self._abandoned += [*self._notices.requests, *filter(None, (self._pending, self._final_barrier))]
            self._begin([place for rank, place in enumerate(before) if rank not in dead])
            self.has_lost_ranks = True
        joined = [place.name for place in self._patience.places[: self.size] if place not in before[:num_worked]]
        return Recovery([before[rank].name for rank in dead if rank not in reported], joined)

    def report_failure(self, error: BaseException, exit_code: int) -> bool:
        """Tell the other ranks that this rank fails.

        Returns
        -------
        Whether this rank should also print the error. It should not if another rank prints it: if several ranks find
        the same error, such as a loss that is not finite, the lowest of them prints it for all.
        """
        if isinstance(error, RankFailed):
            return False
        with self._mpi_lock, self._suppressing_deaths():
            notice = self._notices.send_failure(exit_code, str(error))
            deadline = time.monotonic() + ECHO_SECONDS
            while self.rank > 0 and time.monotonic() < deadline:
                self._notices.receive()
                self._notices.states.answer()
                if any(self._notices.failures.get(rank) == notice for rank in range(self.rank)):
                    return False
                time.sleep(NAP_SECONDS)
        return True

    @contextlib.contextmanager
    def _suppressing_deaths(self) -> Iterator[None]:
        with contextlib.suppress(RankDied), raising_deaths(elastic=self._elastic):
            yield

    def await_others(self) -> None:
        """Wait for at most FINISH_SECONDS until all ranks have come here: rank 0 may still be saving.

        Open MPI's mpiexec kills the other ranks when one ends with an exit code, so all must have said what they have
        to say.
        """
        with self._mpi_lock, self._suppressing_deaths():
            self._final_barrier = barrier = self._communicators.ending.Ibarrier()
            deadline = time.monotonic() + FINISH_SECONDS
            while not barrier.Test() and time.monotonic() < deadline:
                self._notices.receive()
                self._notices.states.answer()
                time.sleep(NAP_SECONDS)

    def abort_if_stuck(self, exit_code: int) -> None:
        """Abort the whole job if MPI cannot be finalised; otherwise return, or end this process of an elastic job."""
        if self.launcher_has_ended:
            launcher.remove_segments()
            os._exit(exit_code)
        if self._elastic:
            launcher.exit_without_mpi(self._parent, exit_code)
        with self._mpi_lock, self._suppressing_deaths():
            a_rank_hangs = self._final_barrier is not None and not self._final_barrier.Test()
            if a_rank_hangs:
                launcher.end_launcher(self._parent)
            if a_rank_hangs or self._pending is not None:
                MPI.COMM_WORLD.Abort(exit_code)

    def close(self) -> None:
        """Stop answering the other ranks."""
        self._closed.set()
        self._answering.join()

    def leave_at_exit(self) -> None:
        """Let this process of an elastic job end with 0 without MPI's finalisation, which would wait for the dead."""
        if self._elastic:
            atexit.register(launcher.exit_without_mpi, self._parent, 0)

    def _leave(self, why: str) -> None:
        """End this process, for which others may already work. With an exit code, mpiexec would end their job, too."""
        self._warn(why)
        os.kill(os.getpid(), signal.SIGKILL)

    def _complete(self, start: Callable[[], MPI.Request]) -> None:
        """Start an operation of all ranks, and wait until it is complete.

        Raises
        ------
        RankFailed, FailedRun
            Another rank has failed, or hangs.
        RankDied
            Another rank has died, in an elastic job; the operations of all ranks then fail.
        """
        with self._failing_together():
            self._wait(start())

    @contextlib.contextmanager
    def _failing_together(self) -> Iterator[None]:
        """Communicate in the block. If a death is seen there, let the operations of all ranks fail."""
        with self._mpi_lock:
            try:
                with raising_deaths(elastic=self._elastic):
                    yield
            except RankDied:
                if self._stops.were_long():
                    self._leave("this process was stopped for a long time; it ends, and the others go on without it")
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
            self._notices.receive()
            self._notices.states.answer()
            self._patience.check(waited)
            time.sleep(NAP_SECONDS)
        self._pending = self._notices.liveness = None

    def _answer(self) -> None:
        """Answer questions while the main thread does other work and does not receive them."""
        limit_at = -math.inf
        while not self._closed.wait(ANSWER_SECONDS):
            self._stops.were_long()
            if (now := time.monotonic()) > limit_at:
                self._patience.limit_silence()
                limit_at = now + liveness.ASK_SECONDS
            if self._heartbeat is not None:
                self._heartbeat.beat()
            if self._mpi_lock.acquire(blocking=False):
                try:
                    self._notices.receive()
                except MPI.Exception:  # the main thread gets the same error, and handles it
                    if not self._elastic:
                        return
                finally:
                    self._mpi_lock.release()
