"""Finds the kernels that this process must load, from the components that a computation uses."""

from __future__ import annotations

from partrain.data.mixing import Mixing
from partrain.kernels.chacha20 import chacha20
from partrain.kernels.compiler.flags import Kernel, require_compiler
from partrain.kernels.compiler.loading import are_cached
from partrain.kernels.gaussian_noise import add_gaussian_noise
from partrain.network.weight_average import WeightAverage
from partrain.parallel.compute_plan import ComputePlan
from partrain.parallel.update.node_sums import NodeSums
from partrain.parallel.update.parameter_update import ParameterUpdate
from partrain.parallel.workers.mailboxes import Mailboxes
from partrain.parallel.workers.planned_steps import StepRing
from partrain.parallel.workers.step_examples import NO_CHANGES, ExampleChanges
from partrain.parallel.workers.tile_computer import tile_kernels
from partrain.parallel.workers.worker import worker_kernels


def required_kernels(plan: ComputePlan, num_workers: int, *, computes_here: bool = False) -> tuple[Kernel, ...]:
    """Return the kernels that the coordinator must load before it computes or starts workers.

    It loads the kernels that it calls. It also loads those of its workers if the cache does not have them all: so they
    are compiled once, before the workers start. Otherwise loading them would only make its own start longer.

    Parameters
    ----------
    plan : the plan of the computation.
    num_workers : 0: this process computes the tiles.
    computes_here : whether it computes tiles besides its workers.

    Raises
    ------
    ConfigError
        The kernels must be compiled, and Numba does not compile.
    """
    if num_workers:
        require_compiler()
    kernels, layers = plan.training.kernels, plan.network.layers
    changes = ExampleChanges.of(plan.training) if plan.trains else NO_CHANGES
    updates = ParameterUpdate.kernels(kernels, plan.groups.rules) if plan.trains else ()
    if plan.trains and plan.training.ema is not None:
        updates = (*updates, *WeightAverage.KERNELS)
    if plan.trains and plan.training.privacy is not None:
        updates = (*updates, add_gaussian_noise, chacha20, *NodeSums.kernels(kernels))
    if not num_workers:
        return (*tile_kernels(kernels, layers, changes), *updates)
    of_series = StepRing.KERNELS if plan.trains and kernels == "fast" else ()
    of_metrics = Mixing.KERNELS if changes.mixes else ()
    of_coordinator = (*updates, *of_series, *of_metrics, *Mailboxes.KERNELS)
    of_workers = worker_kernels(kernels, layers, changes)
    if computes_here or not are_cached(of_workers, plan.training.dtype):
        return (*of_workers, *of_coordinator)
    return of_coordinator
