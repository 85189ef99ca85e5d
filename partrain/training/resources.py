"""Plans a training run and acquires its resources on this rank: shared arrays with the data, and worker processes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from partrain.config.schema.config import Config
from partrain.data.dataset import Dataset
from partrain.errors import ConfigError
from partrain.parallel.compute_resources import RankConnection, compute_resources
from partrain.parallel.workers.compute_group import ComputeGroup
from partrain.parallel.workers.fork_server import start_fork_server
from partrain.parallel.workers.tiles import Tiling
from partrain.system.shared_arrays import SharedArrays
from partrain.training.mpi.agreement import describe_ranks, require_agreement
from partrain.training.plan import TrainingPlan, check_disk, plan_training
from partrain.training.session import Session

if TYPE_CHECKING:  # imported when there are other ranks
    from partrain.parallel.mpi.communicator import Communicator
    from partrain.parallel.mpi.owner_exchange import OwnerExchange
    from partrain.parallel.mpi.ownership import Ownership


@dataclass(frozen=True)
class TrainingResources:
    """The resources of a training run.

    Attributes
    ----------
    plan : the plan of the training run; its data is in the shared arrays.
    num_workers : the number of workers of this rank; 0: this process computes.
    ranks : host and number of workers of each rank, as `describe_ranks` returns them; None without MPI.
    arrays : the shared arrays.
    group : carries out commands.
    """

    plan: TrainingPlan
    num_workers: int
    ranks: Sequence[dict[str, Any]] | None
    arrays: SharedArrays
    group: ComputeGroup

    @property
    def owners(self) -> OwnerExchange | None:
        """What exchanges steps in which parameters have owners; None: there are none."""
        if self.ranks is None:
            return None
        from partrain.parallel.mpi.compute_group import MpiComputeGroup

        assert isinstance(self.group, MpiComputeGroup)
        return self.group.owners

    @property
    def total_workers(self) -> int:
        """The number of workers of all ranks together."""
        return self.num_workers if self.ranks is None else sum(rank["workers"] for rank in self.ranks)


def _plan_training(config: Config, session: Session, dataset: Dataset | None) -> TrainingPlan:
    training = config.training
    if session.num_workers:
        start_fork_server(training.kernels, training.dtype)  # starts while this process reads the data
    # Only rank 0 prints warnings about the data: the other ranks would repeat them.
    warn = session.messages.warn if session.leads else session.messages.note
    return plan_training(config, say=session.messages.say, warn=warn, dataset=dataset)


def _useful_workers(session: Session, plan: TrainingPlan, connection: RankConnection | None) -> int:
    training, num_workers = plan.config.training, session.num_workers
    batch_size = min(training.batch_size, plan.dataset.train.size)
    tiles = plan.tiling.num_tiles(batch_size)
    if session.ranks is not None:
        ownership = None if connection is None else connection.ownership
        return _useful_workers_of_rank(session, session.ranks.group, batch_size, plan.tiling, ownership)
    if num_workers <= tiles:
        return num_workers
    batch, started = ("1 tile", "1 worker is") if tiles == 1 else (f"{tiles} tiles", f"{tiles} workers are")
    session.messages.warn(
        f"a batch has {batch} (training.batch_size {training.batch_size}, training.tile {training.tile}); "
        f"{started} started, not {num_workers}"
    )
    return tiles


def _useful_workers_of_rank(
    session: Session, ranks: Communicator, batch_size: int, tiling: Tiling, ownership: Ownership | None
) -> int:
    from partrain.parallel.mpi.owner_messages import StepShares

    if ownership is None:
        shares = [tiling.rank_share(0, batch_size, rank, ranks.size) for rank in range(ranks.size)]
    else:
        shares = list(StepShares.of(ownership, batch_size).examples)
    num_idle = sum(first == last for first, last in shares)
    first, last = shares[ranks.rank]
    if session.leads and num_idle:
        parts = (
            f"{tiling.num_tiles(batch_size)} tiles" if ownership is None else f"{len(tiling.blocks(batch_size))} blocks"
        )
        session.messages.warn(
            f"a batch has {parts} (training.batch_size, training.tile), and there are {ranks.size} ranks: "
            f"{num_idle} of them have nothing to compute"
        )
    return min(session.num_workers, max(1, tiling.num_tiles(last - first)))


@contextlib.contextmanager
def training_resources(
    config: Config,
    folder: Path | None,
    session: Session,
    check: Callable[[TrainingPlan], None],
    dataset: Dataset | None = None,
) -> Iterator[TrainingResources]:
    """Plan a training run, create the shared arrays with the data in them, and start the processes that compute.

    Memory and disk space are checked before any process starts.

    Parameters
    ----------
    config : the configuration.
    folder : the directory whose file system will hold the checkpoints; None: this process writes none.
    session : the command that trains.
    check : called with the plan before any process starts; raises if the plan does not fit the run.
    dataset : the data set, if it is in memory; None: it is loaded.

    Raises
    ------
    UserError
        The input is wrong, or memory or disk space is too small.
    """
    if session.ranks is not None and config.training.privacy and config.training.privacy.source == "secure":
        raise ConfigError(
            "training.privacy with source: secure draws batches and noise from a random source that differs on each "
            "rank; train with --engine process"
        )
    messages = session.messages
    plan = _plan_training(config, session, dataset)
    check(plan)
    if session.ranks is not None:
        require_agreement(session.ranks.group.everyone, plan)
    config = plan.config
    connection = _connection(session, plan)
    bytes_of_ranks = _bytes_of_ranks(plan, connection)
    num_workers = _useful_workers(session, plan, connection)
    ranks = None if session.ranks is None else describe_ranks(session.ranks.group, num_workers)
    if folder is not None:
        check_disk(folder, plan.checkpoint_bytes, config.checkpoints.keep_last + 2)
    log = messages.say if session.leads else messages.warn  # rank 0 does not report the workers of other ranks
    with (
        compute_resources(
            plan.compute_plan(bytes_of_ranks),
            num_workers,
            messages,
            session.interruption,
            more_kernels=() if connection is None else connection.kernels(config.training.kernels),
        ) as compute,
        compute.group(num_workers, max_restarts=config.workers.max_restarts, log=log, connection=connection) as group,
    ):
        plan = replace(plan, dataset=replace(plan.dataset, splits=compute.splits))
        session.interruption.check()
        yield TrainingResources(plan, num_workers, ranks, compute.arrays, group)


@contextlib.contextmanager
def held_resources(config: Config, session: Session) -> Iterator[None]:
    """Hold what a training run needs: data and kernels in memory. A spare does that, and computes nothing.

    Raises
    ------
    UserError
        As for `training_resources`.
    """
    assert session.ranks is not None
    plan = _plan_training(config, session, None)
    require_agreement(session.ranks.group.everyone, plan)
    with compute_resources(plan.compute_plan(), session.num_workers, session.messages, session.interruption):
        yield


def _connection(session: Session, plan: TrainingPlan) -> RankConnection | None:
    ranks = session.ranks
    if ranks is None:
        return None
    from partrain.training.mpi.owners import choose_owners

    ownership = choose_owners(plan, ranks.group.size)
    return RankConnection(ranks.group, ranks.group.num_processors, ranks.received, session.interruption, ownership)


def _bytes_of_ranks(plan: TrainingPlan, connection: RankConnection | None) -> dict[str, int] | None:
    if connection is None:
        return None
    from partrain.training.mpi.owners import bytes_of_ranks

    return bytes_of_ranks(plan, connection.ranks.size, connection.ownership)
