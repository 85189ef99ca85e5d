"""The owners of a training's parameters, and the memory that the exchange with other ranks takes. Needs no Numba."""

from __future__ import annotations

import numpy as np

from partrain.parallel.mpi.exchange import MOST_MESSAGES
from partrain.parallel.mpi.message_memory import message_bytes
from partrain.parallel.mpi.ownership import Ownership, choose_ownership
from partrain.parallel.workers.commands import Operation
from partrain.system.machine import MIB
from partrain.training.plan import TrainingPlan

# MPI and mpi4py in a rank, and the process that removes their files; measured with Open MPI.
MPI_BYTES = 40 * MIB


def choose_owners(plan: TrainingPlan, num_ranks: int) -> Ownership | None:
    """Return the owners of a training's parameters; see `choose_ownership`."""
    training = plan.config.training
    batch_size = min(training.batch_size, plan.dataset.train.size)
    return choose_ownership(plan.network, plan.groups, training, batch_size, plan.tiling, num_ranks)


def bytes_of_ranks(plan: TrainingPlan, num_ranks: int, ownership: Ownership | None) -> dict[str, int]:
    """Return the bytes of private memory that a rank needs for the exchange with the others, by purpose."""
    training, dataset = plan.config.training, plan.dataset
    per_example, size = training.per_example, min(plan.max_batch_size, dataset.train.size)
    # Private batches have any size.
    batch_sizes = [size] * MOST_MESSAGES if training.privacy else [size, *filter(None, [dataset.train.size % size])]
    operations = [Operation.GRADIENTS_WITH_NORMS] * (per_example.clips or per_example.statistics)
    operations += [Operation.GRADIENTS] * (not per_example.clips)
    evaluated = list(filter(None, [dataset.validation.size, dataset.test.size]))
    num_bytes = message_bytes(
        plan.network, plan.tiling, training.dtype, batch_sizes, operations, evaluated, num_ranks, ownership
    )
    if ownership is not None:  # new values beside the old ones
        most = max(ownership.size_of(rank) for rank in range(num_ranks))
        num_bytes += (1 + plan.groups.num_moments) * most * np.dtype(training.dtype).itemsize
    return {"MPI": MPI_BYTES, f"exchange between {num_ranks} ranks": num_bytes}
