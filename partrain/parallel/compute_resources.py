"""Acquires the resources of a computation: memory, kernels, shared arrays with the data in them, and processes.

Training, evaluation and benchmarks all use `compute_resources`. It acquires the resources in a fixed order and releases
them in the reverse order, even after an error.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from partrain.data.dataset import Split
from partrain.data.split_name import SplitName
from partrain.kernels.compiler.flags import Kernel
from partrain.kernels.compiler.loading import load
from partrain.kernels.compiler.target import fuses_multiply_add
from partrain.parallel.compute_plan import ComputePlan
from partrain.parallel.memory_plan import check_memory
from partrain.parallel.required_kernels import required_kernels
from partrain.parallel.shared_splits import share_splits
from partrain.parallel.workers.compute_group import ComputeGroup, start_group
from partrain.parallel.workers.fork_server import end_fork_server
from partrain.parallel.workers.step_examples import ExampleChanges
from partrain.parallel.workers.tile_computer import Computation
from partrain.parallel.workers.tiles import Tiling
from partrain.parallel.workers.worker_start import FILES_PER_WORKER
from partrain.system.messages import Messages
from partrain.system.process_limits import require_open_files
from partrain.system.shared_arrays import SharedArrays
from partrain.system.signals import Interruption

if TYPE_CHECKING:  # imported when there are other ranks
    from partrain.parallel.mpi.compute_group import MpiComputeGroup, Ranks
    from partrain.parallel.mpi.owner_exchange import OwnerExchange
    from partrain.parallel.mpi.ownership import Ownership


@dataclass(frozen=True)
class RankConnection:
    """The connection of this process to the other ranks of an MPI job.

    Attributes
    ----------
    ranks : exchanges bytes with the other ranks.
    num_processors : the number of processors of this rank.
    received : signals that this rank received.
    agreed : signals that all ranks have agreed on.
    ownership : the owners of the parameters in a training; None: there are none.
    """

    ranks: Ranks
    num_processors: int
    received: Interruption
    agreed: Interruption
    ownership: Ownership | None = None

    def kernels(self, kernels: str) -> tuple[Kernel, ...]:
        """Return the kernels of an exchange; `kernels` is "fast" or "loops"."""
        from partrain.parallel.mpi.copies import Copies
        from partrain.parallel.mpi.owner_messages import FirstMessage
        from partrain.parallel.update.node_sums import NodeSums

        of_owners = () if self.ownership is None else (*NodeSums.kernels(kernels), *FirstMessage.KERNELS)
        return (*Copies.KERNELS, *of_owners)


@dataclass(frozen=True, eq=False)
class ComputeResources:
    """Loaded kernels and allocated shared arrays; starts processes that compute with them.

    Attributes
    ----------
    computation : describes the computation to the workers.
    arrays : the shared arrays.
    splits : the data of the plan, in the shared arrays.
    """

    computation: Computation
    arrays: SharedArrays
    splits: Mapping[SplitName, Split]

    @contextlib.contextmanager
    def group(
        self,
        num_workers: int,
        *,
        max_restarts: int,
        log: Callable[[str], None],
        connection: RankConnection | None = None,
    ) -> Iterator[ComputeGroup]:
        """Start workers, and end them at the end of the block.

        Parameters
        ----------
        num_workers : the number of workers; 0: this process computes.
        max_restarts : the number of workers that are replaced, in total, before the computation fails.
        log : receives a line about each worker that fails.
        connection : connects to the other ranks, which compute their share of each command; None: no other ranks.
        """
        local = start_group(
            num_workers,
            self.computation,
            max_restarts=max_restarts,
            log=log,
            num_processors=None if connection is None else connection.num_processors,
        )
        with contextlib.closing(local):
            yield local if connection is None else self._with_ranks(local, connection)

    def _with_ranks(self, local: ComputeGroup, connection: RankConnection) -> MpiComputeGroup:
        from partrain.parallel.mpi.compute_group import MpiComputeGroup

        c = self.computation
        return MpiComputeGroup(
            local,
            connection.ranks,
            c.network,
            self.arrays,
            c.tiling,
            received=connection.received,
            agreed=connection.agreed,
            owners=self._owners(connection),
        )

    def _owners(self, connection: RankConnection) -> OwnerExchange | None:
        """Return what exchanges steps with owners; its kernels are loaded."""
        from partrain.parallel.mpi.block_runs import MOST_NODES
        from partrain.parallel.mpi.owner_exchange import OwnerExchange
        from partrain.parallel.update.node_sums import NodeSums

        if connection.ownership is None:
            return None
        c, ownership = self.computation, connection.ownership
        assert c.groups is not None
        most = len(self.arrays["indices"]) // ownership.num_ranks
        part = ownership.owned
        sums = NodeSums(c.network, c.kernels, self.arrays, c.tiling, c.dtype, c.groups, part, MOST_NODES, most)
        return OwnerExchange(ownership, connection.ranks, self.arrays, sums)


@contextlib.contextmanager
def compute_resources(
    plan: ComputePlan,
    num_workers: int,
    messages: Messages,
    interruption: Interruption,
    *,
    computes_here: bool = False,
    more_kernels: Sequence[Kernel] = (),
) -> Iterator[ComputeResources]:
    """Check memory, load kernels, create the shared arrays, and copy the data into them.

    Signals are deferred within the block: the caller checks `interruption` where it can stop.

    Parameters
    ----------
    plan : the computation. Its private copy of the data is released after sharing, if the caller keeps no reference.
    num_workers : the largest number of workers; 0: this process computes.
    messages : prints which slow operations run.
    interruption : defers signals.
    computes_here : whether this process also computes tiles while it has workers, and so needs their kernels.
    more_kernels : further kernels that the caller needs.

    Raises
    ------
    ResourceError
        There is too little memory, or too few files may be open.
    """
    check_memory(plan.memory(num_workers), plan.purpose)
    require_open_files(FILES_PER_WORKER * num_workers, f"{num_workers} workers")
    if plan.training.kernels == "fast" and not fuses_multiply_add():
        messages.warn("this processor has no fused multiply-add (FMA): the computation is about 40 times slower")
    kernels = (*required_kernels(plan, num_workers, computes_here=computes_here), *more_kernels)
    if load(kernels, plan.training.dtype, announce=messages.say, warn=messages.warn, has_bar=messages.has_bars):
        end_fork_server()  # it started before these kernels were compiled, so it has not loaded them
    with interruption.deferred(), contextlib.closing(SharedArrays(*plan.arrays(), plan.parts())) as arrays:
        shared = share_splits(plan.splits, arrays)
        plan = replace(plan, splits=shared)  # releases the private copy of the data
        yield ComputeResources(_computation_of(plan, arrays), arrays, shared)


def _computation_of(plan: ComputePlan, arrays: SharedArrays) -> Computation:
    """Return the description that each worker receives; `arrays` are those of the plan."""
    training = plan.training
    computation = Computation(
        plan.network,
        training.kernels,
        training.dtype,
        Tiling(training.tile, training.block),
        plan.normalisation,
        arrays,
    )
    if not plan.trains:
        return computation
    return replace(
        computation,
        class_weights=plan.class_weights,
        clip=training.per_example.clip if training.per_example.clips else None,
        measures=training.per_example.clips or training.per_example.statistics,
        seed=plan.seed,
        changes=ExampleChanges.of(training),
        groups=plan.groups,
    )
