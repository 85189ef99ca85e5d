"""The session of one command that trains: its arguments, messages, signals, and times."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from partrain.store.run_lock import PATIENCE_S
from partrain.system.detached_work import run_detached
from partrain.system.messages import Messages
from partrain.system.signals import Interruption
from partrain.system.timer import Stopwatch
from partrain.training.callbacks import Callbacks
from partrain.training.mpi.initial_state import InitialState

if TYPE_CHECKING:  # its import starts MPI
    from partrain.parallel.mpi.communicator import Communicator


# On these signals Open MPI's mpiexec sends the ranks SIGTERM, and SIGKILL a quarter of a second later.
KILLED_AFTER = (signal.SIGTERM, signal.SIGINT)

# A file server keeps the locks of a host that is down until its lease expires. Linux' NFS server: after 90 s.
LEASE_SECONDS = 120.0


@dataclass
class RankSession:
    """The additional state of a rank of an MPI job.

    Attributes
    ----------
    group : the communicator of all ranks.
    received : signals that this rank received itself.
    run : the directory of the run that the job trains; None as long as it does not exist.
    """

    group: Communicator
    received: Interruption
    run: Path | None = None
    _dead: list[str] = field(default_factory=list)
    _joined: list[str] = field(default_factory=list)
    _died_at: float = 0.0

    def recover(self, messages: Messages) -> None:
        """Go on with the surviving ranks; print nothing but errors until `report_recovery`."""
        if not self._dead:
            self._died_at = time.monotonic()
        messages.begins_again = True
        recovery = self.group.recover()
        self._dead += recovery.dead
        self._joined = [name for name in self._joined if name not in recovery.dead] + recovery.joined

    def report_recovery(self, messages: Messages, step: int | None = None) -> None:
        """Say which ranks have died since the last report, and how long the recovery took.

        Parameters
        ----------
        step : the step from which the training goes on; None: it was complete.
        """
        messages.begins_again = False
        if self._dead and self.group.rank == 0:
            seconds, size = time.monotonic() - self._died_at, self.group.size
            living = "1 rank goes" if size == 1 else f"{size} ranks go"
            place = "" if step is None else f" from step {step}"
            joined = f", and {' and '.join(self._joined)} (spare) begins to work" if self._joined else ""
            messages.warn(f"{' and '.join(self._dead)} died{joined}; {living} on{place}, after {seconds:.2f} s")
        self._dead.clear()
        self._joined.clear()


@dataclass(frozen=True)
class Session:
    """One command that trains.

    Attributes
    ----------
    num_workers : the number of workers of this process; 0: this process computes.
    command_line : the arguments that the command was called with.
    messages : prints messages.
    interruption : the signal to stop at; with MPI, the signal that all ranks have agreed on.
    clock : the seconds of each activity.
    ranks : the state of this rank; None without MPI.
    callbacks : functions that receive metrics.
    update_threads : the largest number of threads that update the parameters; None: the fastest number on this machine.
    with_test : whether a completed training is evaluated on the test examples.
    """

    num_workers: int
    command_line: Sequence[str]
    messages: Messages
    interruption: Interruption
    clock: Stopwatch = field(default_factory=lambda: Stopwatch("startup", "train", "evaluation", "checkpoint"))
    ranks: RankSession | None = None
    callbacks: Callbacks = field(default_factory=Callbacks)
    with_test: bool = True
    update_threads: int | None = None

    @property
    def is_asked_to_stop(self) -> bool:
        """Whether a signal or a callback has asked to stop."""
        return self.interruption.received is not None or self.callbacks.stop_reason is not None

    @property
    def leads(self) -> bool:
        """Whether this process writes the run's files and prints messages."""
        return self.ranks is None or self.ranks.group.rank == 0

    @property
    def run_in_progress(self) -> Path | None:
        """The run that this job has begun, if it lost a rank and now begins again."""
        run = None if self.ranks is None else self.ranks.run
        return run if run is not None and run.exists() else None

    @property
    def lock_patience_s(self) -> float:
        """How long to wait for the lock of the run: after a death, the file system may take time to release it."""
        return PATIENCE_S if self.ranks is None or not self.ranks.group.has_lost_ranks else LEASE_SECONDS

    def announce_run(self, run: Path | None) -> None:
        """Let all ranks know the run's directory, so that each can continue the run; only rank 0 knows it before."""
        if self.ranks is not None:
            group = self.ranks.group
            content = group.everyone.broadcast(None if run is None else os.fsencode(run))
            self.ranks.run = Path(os.fsdecode(content))
            # Rank 0 may leave the broadcast earlier than the others, and die after the next write.
            group.everyone.barrier()

    def report_recovery(self, step: int) -> None:
        """Say which ranks have died and how long the recovery took, if the training goes on after a death."""
        if self.ranks is not None:
            self.ranks.report_recovery(self.messages, step)

    def run_write(self, write: Callable[[], object]) -> None:
        """Write files; if mpiexec is about to kill this process, write them in a child process that survives.

        Raises
        ------
        OSError
            `write` raised it.
        """
        if self.ranks is not None and self.interruption.received in KILLED_AFTER:
            run_detached(write)
        else:
            write()

    def broadcast_state(self, state: InitialState | None) -> None:
        """Send the other ranks the state to start from; None: there is nothing to do."""
        if self.ranks is not None:
            self.ranks.group.everyone.broadcast(b"" if state is None else state.to_bytes())
