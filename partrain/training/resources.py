"""What a training computes with: the shared arrays with the data in them, and the processes, on this rank."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from partrain.config.schema.config import Config
from partrain.data.dataset import Dataset
from partrain.errors import ConfigError
from partrain.kernels.compiler.kernel_set import Kernel, kernel_set
from partrain.kernels.compiler.options import are_cached, load
from partrain.parallel.memory_plan import check_memory
from partrain.parallel.mpi.ranked_group import RankedGroup
from partrain.parallel.shared_splits import share_splits
from partrain.parallel.workers.fork_server import end_fork_server, start_fork_server
from partrain.parallel.workers.pool import ComputeGroup, start_group
from partrain.parallel.workers.tile_computer import Computation
from partrain.parallel.workers.tiles import Tiling
from partrain.store.run_directory import RunDirectory
from partrain.system.detached_work import finish_apart
from partrain.system.machine import proportional_memory
from partrain.system.shared_arrays import SharedArrays
from partrain.training.coordinator import Coordinator
from partrain.training.mpi.agreement import require_agreement
from partrain.training.plan import TrainingPlan, check_disk, plan_training
from partrain.training.session import Session

if TYPE_CHECKING:  # its import starts MPI
    from partrain.parallel.mpi.group import MpiGroup

# Open MPI's mpiexec answers these by sending the ranks SIGTERM, and a quarter of a second later SIGKILL.
FOLLOWED_BY_DEATH = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class TrainingResources:
    """What a training computes with, while it lasts.

    Attributes
    ----------
    plan : what is trained; its data set is in the arrays.
    num_workers : of this rank; 0: this process computes.
    ranks : host and number of workers of each rank; None where there are no ranks.
    arrays : the shared ones.
    group : who carries out commands.
    """

    plan: TrainingPlan
    num_workers: int
    ranks: Sequence[dict[str, Any]] | None
    arrays: SharedArrays
    group: ComputeGroup

    @property
    def total_workers(self) -> int:
        """The workers of all ranks."""
        return self.num_workers if self.ranks is None else sum(rank["workers"] for rank in self.ranks)


def needed_kernels(plan: TrainingPlan) -> tuple[Kernel, ...]:
    """Return what must be loaded before a step is computed."""
    training = plan.config.training
    return kernel_set(training.kernels).for_training(augments=training.augment is not None, drops=plan.network.drops)


def computation_of(plan: TrainingPlan, arrays: SharedArrays) -> Computation:
    """Return what a worker must know; `arrays` are those of the plan, with the data set in them."""
    config = plan.config
    training = config.training
    return Computation(
        plan.network,
        training.kernels,
        training.dtype,
        plan.tiling,
        plan.normalisation,
        arrays,
        class_weights=plan.class_weights,
        clip=training.per_example.clip if training.per_example.clips else None,
        seed=config.seed,
        augment=training.augment,
    )


def _plan_training(config: Config, session: Session, given: Dataset | None) -> TrainingPlan:
    training = config.training
    if session.num_workers:
        start_fork_server(training.kernels, training.dtype)  # it starts while the data is read
    # What rank 0 has to say of the data, the others would say again.
    warn = session.messages.warn if session.leads else session.messages.note
    return plan_training(config, say=session.messages.say, warn=warn, given=given)


def _useful_workers(session: Session, plan: TrainingPlan) -> int:
    training, num_workers = plan.config.training, session.num_workers
    batch_size = min(training.batch_size, plan.splits["train"].size)
    tiles = plan.tiling.num_tiles(batch_size)
    if session.ranks is not None:
        return _useful_workers_of_rank(session, session.ranks.group, batch_size, plan.tiling)
    if num_workers <= tiles:
        return num_workers
    session.messages.warn(
        f"a batch has {tiles} tiles (training.batch_size {training.batch_size}, training.tile {training.tile}); "
        f"{tiles} workers are started, not {num_workers}"
    )
    return tiles


def _useful_workers_of_rank(session: Session, ranks: MpiGroup, batch_size: int, tiling: Tiling) -> int:
    first, last = tiling.rank_share(0, batch_size, ranks.rank, ranks.size)
    tiles = tiling.num_tiles(batch_size)
    if session.leads and tiles < ranks.size:
        session.messages.warn(
            f"a batch has {tiles} tiles (training.batch_size, training.tile), and there are {ranks.size} ranks: "
            f"{ranks.size - tiles} of them have nothing to compute in a step"
        )
    return min(session.num_workers, max(1, tiling.num_tiles(last - first)))


@contextlib.contextmanager
def training_resources(
    config: Config,
    folder: Path | None,
    session: Session,
    check: Callable[[TrainingPlan], None],
    given: Dataset | None = None,
) -> Iterator[TrainingResources]:
    """Prepare a training; provide the shared arrays with the data set in them, and the processes that compute.

    Parameters
    ----------
    folder : where checkpoints will be kept, if they are; memory and disk are checked before anything is started.
    check : told what was prepared, before anything is started; raises where that does not fit the run.
    """
    messages = session.messages
    if session.ranks is not None and config.training.privacy and config.training.privacy.source == "secure":
        raise ConfigError(
            "training.privacy draws batches and noise in one process, from a source that no other rank can draw the "
            "same from; train it with --engine process"
        )
    plan = _plan_training(config, session, given)
    check(plan)
    if session.ranks is not None:
        require_agreement(session.ranks.group, plan)
    config = plan.config
    num_workers = _useful_workers(session, plan)
    ranks = None
    if session.ranks is not None:
        ranks = session.ranks.group.gather({"host": socket.gethostname(), "workers": num_workers})
    check_memory(plan.memory_plan(num_workers))
    if folder is not None:
        check_disk(folder, plan.checkpoint_bytes, config.checkpoints.keep_last + 2)
    kernels, dtype = needed_kernels(plan), config.training.dtype
    if num_workers and are_cached(kernels, dtype):
        kernels = kernel_set(config.training.kernels).for_coordinator
    if load(kernels, dtype, announce=messages.say, warn=messages.warn):
        end_fork_server()  # it has not loaded them
    specs, files = plan.array_plan()
    # From here on there is something to put away, or to save: a signal waits until that can be done.
    with session.interruption.deferred(), contextlib.ExitStack() as at_end:
        arrays = SharedArrays(specs, files)
        at_end.callback(arrays.close)
        plan = _share_data(plan, arrays)
        group = _start_group(plan, arrays, num_workers, session)
        at_end.callback(group.close)
        session.interruption.check()
        yield TrainingResources(plan, num_workers, ranks, arrays, group)


def _share_data(plan: TrainingPlan, arrays: SharedArrays) -> TrainingPlan:
    """Copy the data set into the shared arrays; return the plan with it there.

    The copy that was read is let go with the old plan: it would be there twice.
    """
    dataset = plan.dataset
    shared = share_splits(dataset.files, arrays)
    return replace(plan, dataset=replace(dataset, train=shared["train"], test=shared["test"]))


def _start_group(plan: TrainingPlan, arrays: SharedArrays, num_workers: int, session: Session) -> ComputeGroup:
    """Start the processes that compute; return them, or where there are ranks those of all."""
    config, ranks = plan.config, session.ranks
    group = start_group(
        num_workers,
        computation_of(plan, arrays),
        max_restarts=config.workers.max_restarts,
        # A worker that died here is nobody else's news.
        log=session.messages.say if session.leads else session.messages.warn,
        num_processors=None if ranks is None else ranks.group.num_processors,
    )
    if ranks is None:
        return group
    return RankedGroup(
        group,
        ranks.group,
        plan.network,
        arrays,
        plan.tiling,
        received=ranks.received,
        agreed=session.interruption,
    )


def make_coordinator(run: RunDirectory | None, resources: TrainingResources, session: Session) -> Coordinator:
    """Return who trains with these resources; without a run nothing is kept, for another rank does that."""
    group = resources.group

    def measure_memory() -> int:
        own = proportional_memory([os.getpid(), *group.pids])
        return own if session.ranks is None else sum(session.ranks.group.gather(own))

    def secure(work: Callable[[], object]) -> None:
        if session.ranks is not None and session.interruption.received in FOLLOWED_BY_DEATH:
            finish_apart(work)
        else:
            work()

    return Coordinator(
        resources.plan,
        run,
        group,
        resources.arrays,
        messages=session.messages,
        interruption=session.interruption,
        clock=session.clock,
        measure_memory=measure_memory,
        secure=secure,
    )
