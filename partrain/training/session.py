"""One command that trains: what it was given, and what goes with it to its end."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from partrain.system.detached_work import run_detached
from partrain.system.messages import Messages
from partrain.system.signals import Interruption
from partrain.system.timer import Stopwatch
from partrain.training.mpi.initial_state import InitialState

if TYPE_CHECKING:  # its import starts MPI
    from partrain.parallel.mpi.communicator import Communicator


# On these signals Open MPI's mpiexec sends the ranks SIGTERM, and SIGKILL a quarter of a second later.
KILLED_AFTER = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class RankSession:
    """What a rank of an MPI job has besides: the others, and the signals that it receives itself."""

    group: Communicator
    received: Interruption


@dataclass(frozen=True)
class Session:
    """One command that trains: how it was called, how it speaks, what it listens to, and its time.

    Where there are ranks, it listens to what all of them have agreed on.
    """

    num_workers: int
    command_line: Sequence[str]
    messages: Messages
    interruption: Interruption
    clock: Stopwatch = field(default_factory=lambda: Stopwatch("startup", "train", "evaluation", "checkpoint"))
    ranks: RankSession | None = None

    @property
    def leads(self) -> bool:
        """Whether this process keeps the run, and speaks."""
        return self.ranks is None or self.ranks.group.rank == 0

    def run_write(self, write: Callable[[], object]) -> None:
        """Write files; if mpiexec is about to kill this process, do it in a child that survives.

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
        """Tell the other ranks what to do; None: nothing."""
        if self.ranks is not None:
            self.ranks.group.broadcast(b"" if state is None else state.to_bytes())
