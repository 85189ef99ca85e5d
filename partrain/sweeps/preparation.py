"""What a sweep does once for all of its trainings: it loads the data and the kernels, and checks that all fits."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from partrain.config.schema.config import Config
from partrain.data.dataset import Dataset
from partrain.data.loading import load_source
from partrain.errors import ConfigError
from partrain.kernels.compiler.loading import load
from partrain.parallel.memory_plan import COORDINATOR_BYTES, check_memory
from partrain.parallel.required_kernels import required_kernels
from partrain.parallel.shared_splits import share_dataset
from partrain.system.machine import MIB, available_memory, available_processors
from partrain.system.messages import Messages
from partrain.training.plan import TrainingPlan, plan_training

# What a fork needs of the memory that an interpreter with its modules and kernels has; measured.
FORK_BYTES = 24 * MIB


@dataclass(frozen=True)
class Preparation:
    """What the trainings of a sweep share.

    Attributes
    ----------
    dataset : the data set as its source has it, in shared memory; None: each training loads its own.
    source : what the configurations say about this data set; see `source_of`.
    num_at_once : how many trainings run at a time.
    warnings : what was said about the configurations.
    """

    dataset: Dataset | None
    source: str
    num_at_once: int
    warnings: frozenset[str]

    def close(self) -> None:
        """Release the shared memory; the trainings have ended."""
        if self.dataset is not None and self.dataset.memory is not None:
            self.dataset.memory.close()

    def dataset_for(self, config: Config) -> Dataset | None:
        """Return the shared data set if a configuration trains on it; None if it does not."""
        return self.dataset if source_of(config) == self.source else None


def prepare(
    configs: Sequence[Config], num_trials: int, num_workers: int, num_at_once: int | None, messages: Messages
) -> Preparation:
    """Load what trainings need, and check their configurations.

    Parameters
    ----------
    configs : their configurations, as far as they are known: at least one.
    num_trials : how many trainings there will be.
    num_workers : the number of workers of each; 0: it computes in its own process.
    num_at_once : how many run at a time, at most; None: as many as there are processors for.
    messages : messages to the user.

    Raises
    ------
    UserError
        The data cannot be used, a configuration does not fit it, or there is too little memory for a single training.
    """
    if num_at_once is None:
        num_at_once = max(1, available_processors() // max(1, num_workers))
    source, num_users = Counter(map(source_of, configs)).most_common(1)[0]
    first = next(config for config in configs if source_of(config) == source)
    dataset = load_source(first.data, first.seed, say=messages.say, warn=messages.warn)
    # Synthetic digits in place of a data set that is not available depend on the seed and their number.
    is_replaced = dataset.name == "synthetic-digits" != first.data.name
    drawn = {(config.seed, config.data.train_examples, config.data.validation_examples) for config in configs}
    is_shared = (not is_replaced or len(drawn) == 1) and (num_users > 1 or num_trials > len(configs))
    if is_shared:
        dataset = share_dataset(dataset)
    with_data = [config for config in configs if source_of(config) == source] if is_shared else [first]
    # Trainings that differ only in the seed fit alike.
    different = {json.dumps(config.identity() | {"seed": None}, sort_keys=True): config for config in with_data}
    warned: set[str] = set()
    plans = [
        plan_training(config, say=lambda text: None, warn=warned.add, dataset=dataset) for config in different.values()
    ]
    for text in sorted(warned):
        messages.warn(text)
    if not plans[0].dataset.validation.size:
        raise ConfigError(
            "the objective of a sweep is measured on validation examples, and there are none; set "
            "data.validation_examples"
        )
    num_at_once = min(num_at_once, num_trials, _num_that_fit(plans, num_workers, num_at_once, messages))
    for plan in plans:
        kernels = required_kernels(plan.compute_plan(), num_workers)
        load(kernels, plan.config.training.dtype, announce=messages.say, warn=messages.warn, has_bar=messages.has_bars)
    return Preparation(dataset if is_shared else None, source, num_at_once, frozenset(warned))


def source_of(config: Config) -> str:
    """Return what decides which data set is loaded: equal texts stand for the same one."""
    data = config.data.model_dump(mode="json")
    if config.data.name != "synthetic-digits":
        del data["train_examples"]
        data["validation_examples"] = data["validation_examples"] is None
    data["fold"] = data["fold"] is None
    del data["label_noise"]
    return json.dumps([data, config.seed if config.data.name == "synthetic-digits" else None])


def _num_that_fit(plans: Sequence[TrainingPlan], num_workers: int, num_wanted: int, messages: Messages) -> int:
    """Return how many trainings fit into memory at a time, at most `num_wanted`."""
    memories = [plan.compute_plan().memory(num_workers) for plan in plans]
    largest = max(memories, key=lambda memory: sum(memory.values()))
    check_memory(largest)
    available = available_memory()
    if available is None:
        return num_wanted
    needed = sum(largest.values()) - COORDINATOR_BYTES + FORK_BYTES
    num_fitting = max(1, available // needed)
    if num_fitting < num_wanted:
        messages.warn(
            f"{num_fitting} instead of {num_wanted} trainings run at a time: each needs about {needed / MIB:,.0f} MiB, "
            f"and {available / MIB:,.0f} MiB are available"
        )
    return min(num_wanted, num_fitting)
