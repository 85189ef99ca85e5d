"""Composes a training step from a plan: the only code that knows which parts a configuration needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from partrain.config.schema.training import Privacy
from partrain.network.optimizer import ParameterOptimizer
from partrain.network.weight_average import WeightAverage
from partrain.parallel.update.parameter_update import ParameterUpdate
from partrain.parallel.workers.compute_group import ComputeGroup
from partrain.parallel.workers.pool import WorkerPool
from partrain.training.plan import TrainingPlan
from partrain.training.privacy.dp_sgd import GaussianNoise, PoissonBatches
from partrain.training.privacy.random_source import RandomSource, SecureSource, SeededSource
from partrain.training.step.batches import BatchSelection, ShuffledBatches
from partrain.training.step.gradient import GradientComputation, GradientInRounds, TiledGradient
from partrain.training.step.model_state import ModelState
from partrain.training.step.step_series import StepSeries
from partrain.training.step.training_step import TrainingStep
from partrain.training.step.update import FusedUpdate, ModelUpdate, UpdateFromSum

if TYPE_CHECKING:  # imported when there are other ranks
    from partrain.parallel.mpi.owner_exchange import OwnerExchange

Array = NDArray[Any]


def make_model(
    plan: TrainingPlan,
    arrays: Mapping[str, Array],
    num_threads: int | None = None,
    owners: OwnerExchange | None = None,
) -> ModelState:
    """Return the model at its initial values.

    Parameters
    ----------
    plan : the plan of the training.
    arrays : the shared arrays of the plan; the parameters are written.
    num_threads : the largest number of threads of an update; None: the fastest number.
    owners : exchanges steps in which parameters have owners, on several ranks; None: there are none.
    """
    training, network = plan.config.training, plan.network
    arrays["parameters"][:] = network.parameters.initial_values(plan.config.seed, training.dtype)
    optimizer = ParameterOptimizer(arrays["parameters"], plan.groups, training)
    return make_model_state(plan, arrays, optimizer, num_threads, owners)


def make_model_state(
    plan: TrainingPlan,
    arrays: Mapping[str, Array],
    optimizer: ParameterOptimizer,
    num_threads: int | None,
    owners: OwnerExchange | None = None,
) -> ModelState:
    """Return the state of the optimizer's parameters, with what updates and averages them."""
    update: ParameterUpdate
    if owners is None:
        update = make_parameter_update(plan, arrays, optimizer, num_threads)
    else:
        from partrain.parallel.mpi.owned_update import OwnedUpdate

        training = plan.config.training
        common = plan.network, training.kernels, arrays, plan.tiling, training.dtype
        update = OwnedUpdate(*common, optimizer, num_threads, owners)
    ema = plan.config.training.ema
    average = None if ema is None else WeightAverage(ema, optimizer.groups, optimizer.parameters)
    return ModelState(plan.network, optimizer, update, average)


def compose_step(
    plan: TrainingPlan, arrays: Mapping[str, Array], group: ComputeGroup, model: ModelState
) -> TrainingStep:
    """Return the training step of a plan. The kernels must be loaded.

    Parameters
    ----------
    plan : the plan of the training.
    arrays : the shared arrays of the plan, with the data in them.
    group : computes tiles.
    model : the vectors that the step updates.
    """
    config = plan.config
    training, num_train = config.training, plan.dataset.train.size
    one_round = TiledGradient(group, arrays, plan.tiling, model.update, clips=training.per_example.clips)
    batches: BatchSelection
    gradient: GradientComputation
    if training.privacy is None:
        batches = ShuffledBatches(num_train, training.batch_size, plan.steps_per_epoch, config.seed)
        gradient = one_round
    else:
        batches = PoissonBatches(num_train, training.batch_size, _random_source(training.privacy, config.seed))
        gradient = GradientInRounds(one_round, arrays)
    return TrainingStep(
        plan.network,
        plan.steps_per_epoch,
        batches=batches,
        gradient=gradient,
        update=make_model_update(plan, model.update),
        model=model,
    )


def compose_series(
    plan: TrainingPlan, arrays: Mapping[str, Array], group: ComputeGroup, step: TrainingStep
) -> StepSeries | None:
    """Return what makes steps without the coordinator, or None if it takes part in every step.

    Parameters
    ----------
    plan, arrays, group : as for `compose_step`.
    step : the training step of the plan.
    """
    if not isinstance(group, WorkerPool) or not group.makes_steps:
        return None
    training = plan.config.training
    return StepSeries(
        group,
        arrays,
        plan.steps_per_epoch,
        min(training.batch_size, plan.dataset.train.size),
        batches=step.batches,
        model=step.model,
        clips=training.per_example.clips,
    )


def make_parameter_update(
    plan: TrainingPlan, arrays: Mapping[str, Array], optimizer: ParameterOptimizer, num_threads: int | None = None
) -> ParameterUpdate:
    """Return the update of the optimizer's parameters; see `ParameterUpdate`."""
    training = plan.config.training
    return ParameterUpdate(
        plan.network,
        training.kernels,
        arrays,
        plan.tiling,
        training.dtype,
        optimizer,
        num_threads,
        is_private=training.privacy is not None,
    )


def make_model_update(plan: TrainingPlan, parameter_update: ParameterUpdate) -> ModelUpdate:
    """Return the part of a step that turns a batch's gradient into new parameters."""
    training = plan.config.training
    privacy, clip = training.privacy, training.per_example.clip
    if privacy is None:
        return FusedUpdate(parameter_update)
    assert privacy.noise_multiplier is not None
    assert clip is not None
    source = _random_source(privacy, plan.config.seed)
    noise = GaussianNoise(privacy.noise_multiplier * clip, source, parameter_update.noise_threads)
    return UpdateFromSum(parameter_update, training.batch_size, [noise])


def _random_source(privacy: Privacy, seed: int) -> RandomSource:
    return SeededSource(seed) if privacy.source == "seeded" else SecureSource()
