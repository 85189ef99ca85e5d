"""Interface of the objects that carry out commands: a pool of worker processes, or the coordinator itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from partrain.parallel.workers.commands import Command
from partrain.parallel.workers.in_process_group import InProcessGroup
from partrain.parallel.workers.pool import WorkerPool
from partrain.parallel.workers.tile_computer import Computation


class ComputeGroup(Protocol):
    """Carries out commands.

    Attributes
    ----------
    num_at_once : the best number of commands per batch.
    num_tiles_computed : the tiles of training steps that each worker has computed so far.
    """

    num_at_once: int
    num_tiles_computed: dict[str, int]

    @property
    def pids(self) -> list[int]:
        """The process ids of the group, without the coordinator's."""

    def run(self, commands: Sequence[Command]) -> None:
        """Return when all commands have been carried out."""

    def close(self) -> None:
        """End all processes."""


def start_group(
    num_workers: int,
    computation: Computation,
    *,
    max_restarts: int,
    log: Callable[[str], None],
    num_processors: int | None = None,
) -> ComputeGroup:
    """Start a `WorkerPool`, or with 0 workers an `InProcessGroup`; the parameters are those of `WorkerPool`."""
    if num_workers:
        return WorkerPool(num_workers, computation, max_restarts=max_restarts, log=log, num_processors=num_processors)
    return InProcessGroup(computation)
