"""The session of one command that trains: its arguments, messages, signals, and times."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

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


@dataclass(frozen=True)
class RankSession:
    """The additional state of a rank of an MPI job.

    Attributes
    ----------
    group : the communicator of all ranks.
    received : signals that this rank received itself.
    """

    group: Communicator
    received: Interruption


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
            self.ranks.group.broadcast(b"" if state is None else state.to_bytes())
