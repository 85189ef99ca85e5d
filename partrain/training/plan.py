"""Plans a training run: loads the data, checks shapes, and plans memory and disk.

No process is started, no kernel is compiled, and nothing is written.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from partrain.config.schema.config import Config
from partrain.config.schema.training import Privacy
from partrain.data.augmentation_bounds import require_in_sight
from partrain.data.batches import steps_per_epoch
from partrain.data.class_coverage import missing_training_examples, unvalidated_classes
from partrain.data.dataset import Dataset
from partrain.data.loading import load_dataset
from partrain.data.training_statistics import class_weights, fixed_normalisation, measure_normalisation
from partrain.errors import ConfigError, DataError, ResourceError
from partrain.kernels.bits_version import BITS_FIELD, BITS_VERSION
from partrain.network.learning_rate import schedule_problem
from partrain.network.network import Network
from partrain.network.normalisation import Normalisation
from partrain.network.parameter_groups import ParameterGroups
from partrain.parallel.array_plan import exchange_specs, norm_specs, planned_specs
from partrain.parallel.compute_plan import ComputePlan
from partrain.parallel.memory_plan import memory_of_plots
from partrain.parallel.workers.tiles import Tiling
from partrain.system.machine import MIB
from partrain.training.batch_norm_limits import require_statistics
from partrain.training.logging_schedule import LoggedSession
from partrain.training.privacy.accounting import Accountant
from partrain.training.privacy.settings import resolve_privacy


@dataclass(frozen=True)
class TrainingPlan:
    """A training run that has been checked against its data.

    Attributes
    ----------
    config : the resolved configuration; it names the data that is used, and the sizes of its splits.
    dataset, normalisation, network : the data and the network to train.
    class_weights : weight of each output of the network in the loss; None: all weights are 1.
    accountant : computes epsilon; None if the training is not private.
    """

    config: Config
    dataset: Dataset
    normalisation: Normalisation
    network: Network
    class_weights: tuple[float, ...] | None = None
    accountant: Accountant | None = None

    @property
    def steps_per_epoch(self) -> int:
        """The number of steps in an epoch."""
        return steps_per_epoch(self.dataset.train.size, self.config.training.batch_size)

    @property
    def num_steps(self) -> int:
        """The number of the last step."""
        return num_steps(self.config)

    def num_examples_until(self, step: int) -> int:
        """Return the number of examples in the first `step` batches; the expected number if batches are sampled."""
        epochs, steps = divmod(step, self.steps_per_epoch)
        num_train = self.dataset.train.size
        return epochs * num_train + min(steps * self.config.training.batch_size, num_train)

    @property
    def max_batch_size(self) -> int:
        """The largest number of examples that are computed at once."""
        training = self.config.training
        return training.batch_size if training.privacy is None else training.privacy.max_batch_size or 0

    @cached_property
    def groups(self) -> ParameterGroups:
        """The groups of the network's parameters."""
        return ParameterGroups.of(self.network, self.config.training.optimizer)

    @cached_property
    def budget_steps(self) -> int | None:
        """The last step at which epsilon is within its target; None without a target."""
        privacy = self.config.training.privacy
        if privacy is None or privacy.target_epsilon is None or self.accountant is None:
            return None
        return self.accountant.most_steps(privacy.target_epsilon, self.num_steps)

    def logged_session(self, *, from_step: int) -> LoggedSession:
        """Return the session of a command that trains from the state after `from_step`."""
        budget_steps = self.budget_steps
        last_step = self.num_steps if budget_steps is None else min(self.num_steps, budget_steps)
        return LoggedSession.of(from_step, last_step, self.config)

    def privacy_after(self, step: int) -> dict[str, Any] | None:
        """Return the privacy after `step`, as checkpoints record it; None if the training is not private."""
        privacy, accountant = self.config.training.privacy, self.accountant
        if privacy is None or accountant is None:
            return None
        return {
            "epsilon": accountant.epsilon(step),
            "delta": accountant.delta,
            "noise_multiplier": accountant.noise_multiplier,
            "sampling_rate": accountant.sampling_rate,
            "secret_noise": privacy.source == "secure",
        }

    @property
    def tiling(self) -> Tiling:
        """Cuts batches into tiles."""
        return Tiling(self.config.training.tile, self.config.training.block)

    def compute_plan(self, bytes_of_ranks: Mapping[str, int] | None = None) -> ComputePlan:
        """Return the plan of the computation: shared arrays, kernels, and memory.

        Parameters
        ----------
        bytes_of_ranks : private memory for the exchange with other ranks, by purpose; None: there are no other ranks.
        """
        training, network, batch_size = self.config.training, self.network, self.max_batch_size
        # All evaluations, during the training and at its end, use the same arrays.
        num_results = max(batch_size, self.dataset.validation.size, self.dataset.test.size)
        exchange = exchange_specs(network, batch_size, self.tiling, training.dtype, num_results)
        if training.per_example.statistics or training.per_example.clips:
            exchange |= norm_specs(network, batch_size)
        # With other ranks, the coordinator takes part in every step; so it does where it averages the parameters.
        if not training.privacy and not training.ema and bytes_of_ranks is None:
            exchange |= planned_specs(network, self.groups, training.kernels, batch_size)
        parameters_bytes = network.parameters.size * np.dtype(training.dtype).itemsize
        # Where workers make steps by themselves, the shared memory has the moments, and nothing has the gradient.
        num_saved, makes_steps = self._num_saved_vectors, "steps.numbers" in exchange
        num_vectors = 0 if makes_steps and not training.per_example.statistics else num_saved
        return ComputePlan(
            purpose="the training",
            network=network,
            training=training,
            normalisation=self.normalisation,
            splits=self.dataset.splits,
            exchange=exchange,
            own_bytes={"gradient and moments": num_vectors * parameters_bytes, **(bytes_of_ranks or {})},
            # A checkpoint holds parameters and moments, and is put together from a second copy.
            temporary_bytes=max(
                2 * num_saved * parameters_bytes, memory_of_plots() if self.config.logging.plots else 0
            ),
            trains=True,
            class_weights=self.class_weights,
            seed=self.config.seed,
            shared=self.dataset.memory,
        )

    @property
    def checkpoint_bytes(self) -> int:
        """The approximate size of a checkpoint, in bytes."""
        itemsize = np.dtype(self.config.training.dtype).itemsize
        return self._num_saved_vectors * self.network.parameters.size * itemsize + 2**16

    @property
    def _num_saved_vectors(self) -> int:
        """The number of vectors in a checkpoint: parameters, moments and average."""
        return 1 + self.groups.num_moments + (self.config.training.ema is not None)


def num_steps(resolved: Config) -> int:
    """Return the last step of a training run: the end of its epochs, or `max_steps` if that is smaller."""
    training = resolved.training
    assert resolved.data.train_examples is not None
    steps = training.epochs * steps_per_epoch(resolved.data.train_examples, training.batch_size)
    return steps if training.max_steps is None else min(steps, training.max_steps)


def _num_evaluations(resolved: Config) -> int:
    """Return the number of evaluations that are due during a training run."""
    logging, training, last_step = resolved.logging, resolved.training, num_steps(resolved)
    assert resolved.data.train_examples is not None
    epoch = steps_per_epoch(resolved.data.train_examples, training.batch_size)
    intervals = {epoch * (logging.evaluate_every_epochs or 0), logging.evaluate_every_steps or 0} - {0}
    both = last_step // math.lcm(*intervals) if len(intervals) == 2 else 0
    return sum(last_step // interval for interval in intervals) - both


def plan_training(
    config: Config, *, say: Callable[[str], None], warn: Callable[[str], None], dataset: Dataset | None = None
) -> TrainingPlan:
    """Load the data and check the whole configuration against it; the parameters are those of `load_dataset`.

    Raises
    ------
    UserError
        The data cannot be used, or the configuration does not fit it.
    """
    dataset = load_dataset(config.data, config.seed, say=say, warn=warn, dataset=dataset)
    train = dataset.train
    if (needs := config.training.needs_evaluations) and not dataset.validation.size:
        raise ConfigError(f"{needs} needs validation examples, and there are none; set data.validation_examples")
    for warning in missing_training_examples(dataset, config.data.validation_examples):
        warn(warning)
    if message := unvalidated_classes(dataset, config.data.validation_examples):
        say(message)
    network, (privacy, accountant) = _fitted(config, dataset, warn)
    config = config.model_copy(update={"training": config.training.model_copy(update={"privacy": privacy})})
    resolved = _resolve(config, dataset)
    optimizer, schedule = resolved.training.optimizer, resolved.training.schedule
    if problem := schedule_problem(optimizer, schedule, num_steps(resolved), _num_evaluations(resolved)):
        warn(problem)
    weights = None
    if config.training.class_weights is not None:
        weights = class_weights(train.labels, network.num_outputs)
    normalisation = fixed_normalisation(train.images) if privacy else _normalisation(dataset, config)
    return TrainingPlan(resolved, dataset, normalisation, network, weights, accountant)


def _fitted(
    config: Config, dataset: Dataset, warn: Callable[[str], None]
) -> tuple[Network, tuple[Privacy, Accountant] | tuple[None, None]]:
    """Return the network for the data, and what `resolve_privacy` returns.

    Raises
    ------
    ConfigError
        The configuration does not fit the data; the message lists all problems.
    """
    training, num_train = config.training, dataset.train.size
    problems: list[str] = []
    with _noted(problems):
        network = Network(config.network, dataset.image_shape, len(dataset.class_names), training.freeze)
        require_statistics(network, training, num_train)
    with _noted(problems):
        require_in_sight(training.augment, dataset.image_shape)
    with _noted(problems):
        privacy = resolve_privacy(training, num_train, warn)
    if problems:
        raise ConfigError("\n".join(problems))
    return network, privacy


@contextmanager
def _noted(problems: list[str]) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        problems.append(str(error))


def _normalisation(dataset: Dataset, config: Config) -> Normalisation:
    def measure() -> dict[str, Any]:
        return vars(measure_normalisation(dataset.train.images))

    fold = config.data.fold
    part = "" if fold is None else f" without fold {fold.number} of {fold.of} with seed {config.seed}"
    name = f"normalisation of {dataset.train.size} examples{part}, bits {BITS_VERSION}"
    measured = dataset.measured(name, measure)
    dtype = config.training.dtype
    with np.errstate(divide="ignore", over="ignore"):
        overflows = np.isinf(1 / np.array(measured["std"], dtype))
    if overflows.any():
        channel = int(np.argmax(overflows))
        raise DataError(
            f"{dataset.source}: the pixels of channel {channel} are too small to normalise: their standard deviation "
            f"is {measured['std'][channel]:.3g}, and 1 / {measured['std'][channel]:.3g} overflows {dtype}; "
            "multiply the images by a constant, so that they lie for example between 0 and 1"
        )
    return Normalisation(tuple(measured["mean"]), tuple(measured["std"]))


def describe_plan(plan: TrainingPlan, num_workers: int, bytes_of_ranks: Mapping[str, int] | None = None) -> str:
    """Return the output of `--dry-run`: configuration, table of layers, version of the bits, optimizer, memory.

    Parameters
    ----------
    bytes_of_ranks : as for `TrainingPlan.compute_plan`.
    """
    memory = plan.compute_plan(bytes_of_ranks).memory(num_workers)
    lines = [f"{size / MIB:>10,.1f} MiB  {name}" for name, size in (memory | {"total": sum(memory.values())}).items()]
    facts = [f"{BITS_FIELD}: {BITS_VERSION}", f"optimizer: {plan.groups.description()}"]
    return "\n".join([plan.config.to_yaml(), plan.network.table(), "", *facts, "", "memory plan", *lines])


def check_disk(folder: Path, checkpoint_bytes: int, num_checkpoints: int) -> None:
    """Check that the file system of `folder` has enough free space for the run's checkpoints.

    Raises
    ------
    ResourceError
        There is too little; the message says how much is needed and how much is free.
    """
    needed, there = checkpoint_bytes * num_checkpoints, shutil.disk_usage(folder).free
    if needed > there:
        raise ResourceError(
            f"{folder}: the run needs about {needed / MIB:,.0f} MiB for {num_checkpoints} checkpoints, but "
            f"{there / MIB:,.0f} MiB are free; free disk space, or choose another directory with --runs-dir"
        )


def _resolve(config: Config, dataset: Dataset) -> Config:
    """Fill in the values that depend on the data: its name and sizes, and the length of the schedule."""
    mapping: dict[str, Any] = config.to_mapping()
    path = config.data.path
    mapping["data"] |= {
        "path": None if path is None else str(Path(path).absolute()),
        "name": dataset.name,
        "train_examples": dataset.train.size,
        # A number would mean the end of the training examples.
        "validation_examples": None if dataset.has_own_validation else dataset.validation.size,
        "when_unavailable": "error",
    }
    schedule = mapping["training"]["schedule"]
    if "decay_steps" in schedule and schedule["decay_steps"] is None:
        steps = steps_per_epoch(dataset.train.size, config.training.batch_size)
        schedule["decay_steps"] = config.training.epochs * steps
    return Config.model_validate(mapping)
