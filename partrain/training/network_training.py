"""Trains a network without a run: nothing is written, and the caller gets parameters and moments."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from partrain.config.schema.config import Config
from partrain.config.schema.training import Training
from partrain.data.dataset import Dataset
from partrain.errors import ConfigError
from partrain.network.network import Network
from partrain.network.normalisation import Normalisation
from partrain.network.optimizer import Coefficients, ParameterOptimizer
from partrain.network.parameter_groups import ParameterGroups
from partrain.parallel.compute_resources import compute_resources
from partrain.training.coordinator import Coordinator
from partrain.training.plan import TrainingPlan, plan_training
from partrain.training.privacy.settings import NOT_PRIVATE, is_seeded
from partrain.training.resources import training_resources
from partrain.training.run_output import RunOutput
from partrain.training.session import Session
from partrain.training.step.composition import compose_step, make_model, make_model_state
from partrain.training.step.model_state import ModelState


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A network in the state after a training.

    Attributes
    ----------
    config : the resolved configuration.
    network : the network.
    normalisation : the normalisation of the images.
    tensors : parameters and the optimizer's moments, under their names in checkpoints.
    num_steps : the number of steps that were made.
    num_epochs : the number of epochs that were begun.
    """

    config: Config
    network: Network
    normalisation: Normalisation
    tensors: Mapping[str, NDArray[Any]]
    num_steps: int
    num_epochs: int

    @property
    def parameters(self) -> NDArray[Any]:
        """The network's vector of parameters, in the configuration's dtype."""
        return self.network.parameters.join(self.tensors)


def train_network(config: Config, dataset: Dataset, session: Session) -> TrainedNetwork:
    """Train a network to the bits of a run with this configuration.

    Parameters
    ----------
    config : the configuration.
    dataset : the data set, in memory. Its test split is not used, and may be empty.
    session : the command that trains, without MPI.

    Raises
    ------
    UserError
        The input is wrong.
    FailedRun
        A value is not finite, or the workers failed.
    Interrupted
        A signal asked to stop; nothing is kept.

    Side effects
    ------------
    While it trains, processes and shared memory.
    """
    with training_resources(config, None, session, lambda plan: None, dataset) as resources:
        plan = resources.plan
        if is_seeded(plan.config.training):
            session.messages.warn(NOT_PRIVATE)
        coordinator = Coordinator(resources, session, RunOutput.of_run(None, plan, session))
        coordinator.train()
        session.interruption.check()
        return _trained(plan, coordinator.model, coordinator.step, -(-coordinator.step // plan.steps_per_epoch))


def train_epoch(config: Config, dataset: Dataset, session: Session, before: TrainedNetwork | None) -> TrainedNetwork:
    """Train for one epoch on examples, which may be others in each call, and continue from an earlier state.

    The optimizer's moments, the schedule and the numbers of the epochs continue; the normalisation stays
    that of the first call. So with the same examples in each call, the bits are those of `train_network`.

    Parameters
    ----------
    config, dataset, session : as for `train_network`. There is no validation.
    before : the earlier state; None: start from initial parameters.

    Raises, Side effects: as for `train_network`.
    """
    _require_single_epochs(config)
    num_epochs, num_steps = (0, 0) if before is None else (before.num_epochs, before.num_steps)
    config = config.model_copy(update={"training": config.training.model_copy(update={"epochs": num_epochs + 1})})
    # Without warnings: not every call needs examples of every class.
    plan = plan_training(config, say=session.messages.say, warn=session.messages.note, dataset=dataset)
    if before is not None:
        if plan.network.layers != before.network.layers:
            raise ConfigError("partial_fit: the network is not the one of the first call; call fit to train another")
        plan = replace(plan, normalisation=before.normalisation)
    tiles = plan.tiling.num_tiles(min(config.training.batch_size, plan.dataset.train.size))
    num_workers, messages = min(session.num_workers, tiles), session.messages
    with (
        compute_resources(plan.compute_plan(), num_workers, messages, session.interruption) as compute,
        compute.group(num_workers, max_restarts=config.workers.max_restarts, log=messages.warn) as group,
    ):
        plan = replace(plan, dataset=replace(plan.dataset, splits=compute.splits))
        # The number that the last step before would have if all epochs had as many steps as this one.
        first = num_epochs * plan.steps_per_epoch
        model = _continued_model(plan, compute.arrays, before, num_steps - first, session.update_threads)
        with contextlib.closing(model):
            training_step = compose_step(plan, compute.arrays, group, model)
            for step in range(first + 1, first + plan.steps_per_epoch + 1):
                session.interruption.check()
                training_step.make(step)
            return _trained(plan, model, num_steps + plan.steps_per_epoch, num_epochs + 1)


class _ContinuedOptimizer(ParameterOptimizer):
    """An optimizer that made more steps (or fewer, if negative) before than the numbers of steps say."""

    def __init__(self, parameters: NDArray[Any], groups: ParameterGroups, training: Training, more_steps: int) -> None:
        super().__init__(parameters, groups, training)
        self._more_steps = more_steps

    def coefficients(self, num_examples: int, step: int) -> list[Coefficients]:
        return super().coefficients(num_examples, step + self._more_steps)


def _continued_model(
    plan: TrainingPlan,
    arrays: Mapping[str, NDArray[Any]],
    before: TrainedNetwork | None,
    more_steps: int,
    num_threads: int | None,
) -> ModelState:
    if before is None:
        return make_model(plan, arrays, num_threads)
    optimizer = _ContinuedOptimizer(arrays["parameters"], plan.groups, plan.config.training, more_steps)
    model = make_model_state(plan, arrays, optimizer, num_threads)
    model.restore(before.tensors, before.num_steps - more_steps)
    return model


def _trained(plan: TrainingPlan, model: ModelState, num_steps: int, num_epochs: int) -> TrainedNetwork:
    tensors = {name: tensor.copy() for name, tensor in model.tensors().items()}
    return TrainedNetwork(plan.config, plan.network, plan.normalisation, tensors, num_steps, num_epochs)


def _require_single_epochs(config: Config) -> None:
    """Check that training one epoch at a time, with any number of examples, can keep what the configuration says."""
    training = config.training
    schedule = training.schedule.name
    if schedule == "plateau":
        raise ConfigError("partial_fit: training.schedule.name plateau needs validation examples; call fit")
    if schedule in ("cosine", "linear", "one_cycle") and training.schedule.decay_steps is None:
        raise ConfigError(
            f"partial_fit: training.schedule.name {schedule} needs decay_steps, because there is no last epoch at "
            "which the learning rate could reach its end"
        )
    for name in ("privacy", "stop_early", "max_steps"):
        if getattr(training, name) is not None:
            raise ConfigError(f"partial_fit: training.{name} needs a training as a whole; call fit, or leave it out")
