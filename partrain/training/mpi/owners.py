"""The owners of a training's parameters. Needs no Numba."""

from __future__ import annotations

from partrain.parallel.mpi.ownership import Ownership, choose_ownership
from partrain.training.plan import TrainingPlan


def choose_owners(plan: TrainingPlan, num_ranks: int) -> Ownership | None:
    """Return the owners of a training's parameters; see `choose_ownership`."""
    training = plan.config.training
    batch_size = min(training.batch_size, plan.dataset.train.size)
    return choose_ownership(plan.network, plan.groups, training, batch_size, plan.tiling, num_ranks)
