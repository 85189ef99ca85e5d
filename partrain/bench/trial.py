"""The training that is measured: real steps, so that gradients are as sparse, and caches as full, as ever."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from time import monotonic
from typing import Any

from numpy.typing import NDArray

from partrain.config.schema.training import Training
from partrain.data.batches import epoch_order
from partrain.data.split_name import SplitName
from partrain.errors import FailedRun
from partrain.network.adam import Adam
from partrain.parallel.compute_resources import ComputeResources
from partrain.parallel.update.parameter_update import ParameterUpdate
from partrain.parallel.workers.commands import Command, Operation
from partrain.parallel.workers.compute_group import ComputeGroup
from partrain.parallel.workers.in_process_group import InProcessGroup
from partrain.parallel.workers.pool import WorkerPool
from partrain.store.metrics_log import MetricsLog
from partrain.system.machine import available_processors
from partrain.system.messages import Messages
from partrain.system.shared_arrays import SharedArrays
from partrain.system.signals import Interruption
from partrain.training.plan import TrainingPlan

Array = NDArray[Any]
Samples = dict[str, list[float]]

# Before anything is measured: by then ReLU and pooling let through as few gradients as later on.
TRAINING_STEPS = 200
# How long one thing is measured, and how often: at least, at most.
SECONDS = 1.0
LEAST_CALLS, MOST_CALLS = 10, 1000
# However seldom the configuration logs, it is to be measured.
LOG_EVERY = 10


def say_what_is_left_out(training: Training, warn: Callable[[str], None]) -> None:
    """Say which parts of the configuration's steps are not measured."""
    left_out = [
        name
        for name, is_there in (
            ("per_example.clip", training.per_example.clips),
            ("per_example.statistics", training.per_example.statistics),
            ("privacy", training.privacy is not None),
        )
        if is_there
    ]
    if left_out:
        names = ", ".join(f"training.{name}" for name in left_out)
        warn(f"plain steps are measured, without {names}: the time of those is in summary.json after a training")


class Trainer:
    """Makes steps as the coordinator does, of its parts, and notes how long each phase took. All batches are full."""

    def __init__(self, plan: TrainingPlan, arrays: SharedArrays, log: MetricsLog) -> None:
        config, network, training = plan.config, plan.network, plan.config.training
        num_train = plan.dataset.train.size
        self.num_examples = min(training.batch_size, num_train)
        self.arrays, self.tiling = arrays, plan.tiling
        parameters = arrays["parameters"]
        parameters[:] = network.parameters.initial_values(config.seed, training.dtype)
        self.adam = Adam(parameters, training.optimizer, training.schedule)
        self.update = ParameterUpdate(network, training.kernels, arrays, plan.tiling, training.dtype, self.adam)
        self.num_steps = 0
        self._order = lru_cache(maxsize=1)(partial(epoch_order, num_train, seed=config.seed))
        self._steps_per_epoch = num_train // self.num_examples
        self._log, self._log_every = log, config.logging.every_steps

    def choose_batch(self) -> None:
        """Write the indices of the next batch."""
        epoch, place = divmod(self.num_steps, self._steps_per_epoch)
        first = place * self.num_examples
        self.arrays["indices"][: self.num_examples] = self._order(epoch=epoch)[first : first + self.num_examples]

    def commands(self, num_shards: int) -> list[Command]:
        """Return the commands for a batch."""
        shards = self.tiling.shards(0, self.num_examples, num_shards)
        return [Command(Operation.GRADIENTS, SplitName.TRAIN, first, last) for first, last in shards]

    def step(self, group: ComputeGroup, commands: Sequence[Command]) -> dict[str, float]:
        """Make a step; return the seconds of its phases, of "run" (dispatch to wait), and of the whole."""
        n, begin = self.num_examples, monotonic()
        self.choose_batch()
        prepared = monotonic()
        group.run(commands)
        computed = monotonic()
        loss = float(self.arrays["losses"][:n].mean())
        lr = self.adam.learning_rate(self.num_steps + 1)
        checked = monotonic()
        not_finite = self.update.apply(n, self.num_steps + 1)
        updated = monotonic()
        if not math.isfinite(loss) or not_finite is not None:
            raise FailedRun(f"step {self.num_steps + 1} is not finite; a lower training.optimizer.lr may help")
        self.num_steps += 1
        times = {
            "prepare": prepared - begin + checked - computed,
            "run": computed - (group.dispatching_at if isinstance(group, WorkerPool) else prepared),
            "update": updated - checked,
        }
        if isinstance(group, WorkerPool):
            times["dispatch"] = group.dispatched_at - group.dispatching_at
            times["prepare"] += group.dispatching_at - prepared
        if self.num_steps % min(self._log_every, LOG_EVERY) == 0:
            self._log_step(loss, lr)
            # Each step's share of what is done every so many steps.
            times["logging"] = (monotonic() - updated) / self._log_every
        return times | {"step": monotonic() - begin}

    def _log_step(self, loss: float, lr: float) -> None:
        n = self.num_examples
        num_correct = int(
            (self.arrays["predictions"][:n] == self.arrays["train.labels"][self.arrays["indices"][:n]]).sum()
        )
        row = {"step": self.num_steps, "epoch": 1.0, "examples": n, "time_s": 1.0}
        self._log.append(row | {"train/loss": loss, "train/accuracy": num_correct / n, "lr": lr, "examples_per_s": 1.0})


class Trial:
    """What the measurements share: a training in shared arrays, and processes only while they are measured."""

    def __init__(
        self,
        plan: TrainingPlan,
        resources: ComputeResources,
        log: MetricsLog,
        messages: Messages,
        interruption: Interruption,
    ) -> None:
        training = plan.config.training
        arrays = resources.arrays
        self.resources = resources
        self.plan, self.arrays, self.training, self.messages = plan, arrays, training, messages
        self._interruption = interruption
        self.inline = InProcessGroup(resources.computation)
        self.trainer = Trainer(plan, arrays, log)
        self.num_tiles = plan.tiling.num_tiles(self.trainer.num_examples)
        self.warm_up()

    def repeat(self, call: Callable[[], Mapping[str, float]], most: int = MOST_CALLS) -> Samples:
        """Call for SECONDS, LEAST_CALLS at least; return the values of each name."""
        samples: Samples = {}
        begin, count = monotonic(), 0
        while count < min(LEAST_CALLS, most) or (count < most and monotonic() < begin + SECONDS):
            self._interruption.check()
            for name, value in call().items():
                samples.setdefault(name, []).append(value)
            count += 1
        return samples

    def close(self) -> None:
        """End the threads of the update."""
        self.trainer.update.close()

    def warm_up(self) -> None:
        """Train in this process."""
        commands = self.trainer.commands(1)
        self.repeat(lambda: self.trainer.step(self.inline, commands), TRAINING_STEPS)

    def compare(self, calls: Mapping[int, Callable[[], object]]) -> dict[int, float]:
        """Return the median of the seconds that each call takes; in turns, so that a bad moment meets all of them."""
        samples = self.repeat(lambda: {str(key): seconds_of(call) for key, call in calls.items()})
        return {key: statistics.median(samples[str(key)]) for key in calls}

    def shard_seconds(self, numbers_of_workers: Sequence[int]) -> dict[int, float]:
        """Return what a shard takes in this process, by its tiles: those of the workers, and powers of 2."""
        powers = (2**k for k in range(self.num_tiles.bit_length()))
        at_once = (max(1, min(number, available_processors())) for number in numbers_of_workers)
        longest = (-(-self.num_tiles // number) for number in at_once)
        commands = {
            tiles: Command(
                Operation.GRADIENTS,
                SplitName.TRAIN,
                0,
                min(tiles * self.training.tile, self.trainer.num_examples),
            )
            for tiles in sorted({*powers, *longest})
        }
        return self.compare({tiles: partial(self.inline.run, [command]) for tiles, command in commands.items()})


def seconds_of(call: Callable[[], object]) -> float:
    """Return how long a call took."""
    begin = monotonic()
    call()
    return monotonic() - begin
