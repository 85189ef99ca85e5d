"""The training that benchmarks measure: real steps, so that gradients are as sparse and caches as full as in a run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np

from partrain.data.split_name import SplitName
from partrain.parallel.compute_resources import ComputeResources
from partrain.parallel.workers.commands import Command, Operation
from partrain.parallel.workers.compute_group import ComputeGroup
from partrain.parallel.workers.in_process_group import InProcessGroup
from partrain.parallel.workers.pool import WorkerPool
from partrain.store.run_paths import RunPaths
from partrain.system.machine import available_processors
from partrain.system.messages import Messages
from partrain.system.shared_arrays import SharedArrays
from partrain.system.signals import Interruption
from partrain.system.timer import Stopwatch
from partrain.training.metrics_logger import MetricsLogger
from partrain.training.plan import TrainingPlan
from partrain.training.step.composition import compose_series, compose_step, make_model
from partrain.training.step.gradient import BatchGradient
from partrain.training.step.phase_timer import NOISE, PREPARE, UPDATE, PhaseTimer
from partrain.training.step.step_series import StepSeries
from partrain.training.step.training_step import StepResult, TrainingStep
from partrain.training.step_metrics import StepMetrics, make_accuracy

if TYPE_CHECKING:  # imported when there are other ranks
    from partrain.parallel.mpi.owner_exchange import OwnerExchange

Samples = dict[str, list[float]]

# Number of warm-up steps, so that gradients are as sparse as later in training.
TRAINING_STEPS = 200
# How long each measurement takes, and the smallest and largest number of its calls.
SECONDS = 1.0
LEAST_CALLS, MOST_CALLS = 10, 1000
# The largest interval between logged steps: a configuration that logs rarely would otherwise show no logging time.
LOG_EVERY = 10
# The longest series of steps that workers make by themselves.
SERIES_STEPS = 256

# Phases of a step besides those of its timer: "run" is the time from the first command to the last answer. A logged
# step that computes norms, where others do not, counts separately.
RUN, RUN_WITH_NORMS = "run", "run with norms"


class TimedGroup:
    """A group that measures how long its commands take, in total over all rounds of a step.

    Attributes
    ----------
    before_dispatch : seconds before the first command is posted, since the last `restart`.
    dispatch : seconds from posting the first command to posting the last one.
    run_seconds : seconds from posting the first command to the last answer.
    """

    def __init__(self, group: ComputeGroup) -> None:
        self.group = group
        self.num_at_once, self.num_tiles_computed = group.num_at_once, group.num_tiles_computed
        self.restart()

    @property
    def pids(self) -> list[int]:
        """See `ComputeGroup`."""
        return self.group.pids

    def restart(self) -> None:
        """Begin a new step."""
        self.before_dispatch = self.dispatch = self.run_seconds = 0.0

    def run(self, commands: Sequence[Command]) -> None:
        """See `ComputeGroup`."""
        group, begin = self.group, monotonic()
        group.run(commands)
        end = monotonic()
        if isinstance(group, WorkerPool):
            self.before_dispatch += group.dispatching_at - begin
            self.dispatch += group.dispatched_at - group.dispatching_at
            begin = group.dispatching_at
        self.run_seconds += end - begin

    def close(self) -> None:
        """See `ComputeGroup`."""
        self.group.close()


class MeasuredTraining:
    """Makes the steps of a training run, and measures their phases.

    Parameters
    ----------
    plan : the plan of the training run.
    arrays : the shared arrays of the plan.
    folder : the directory for the metrics.
    warn : receives warnings.
    owners : as for `make_model`.

    Attributes
    ----------
    num_examples : the size of a batch; with sampled batches, the expected size.
    round_size : the number of examples that are computed at once.
    last_batch : the gradient of the last step.
    """

    last_batch: BatchGradient

    def __init__(
        self,
        plan: TrainingPlan,
        arrays: SharedArrays,
        folder: Path,
        warn: Callable[[str], None],
        owners: OwnerExchange | None = None,
    ) -> None:
        config = plan.config
        self.plan, self.arrays = plan, arrays
        self.num_examples = min(config.training.batch_size, plan.dataset.train.size)
        self.round_size = min(self.num_examples, plan.max_batch_size)
        self.model = make_model(plan, arrays, owners=owners)
        self._log_every = config.logging.every_steps
        per_example = config.training.per_example
        # Without clipping, only logged steps compute norms; clipping computes them in every step.
        self._with_norms = per_example.statistics and not per_example.clips
        self._step_metrics = StepMetrics(
            plan.network, per_example, lambda step: step % self._log_every == 0, make_accuracy(plan)
        )
        self._logger = MetricsLogger(RunPaths(folder).metrics_path, plan, Stopwatch("train"), warn)
        self._logger.open()
        self._timer = PhaseTimer()

    @property
    def facts(self) -> dict[str, Any]:
        """What is trained, for JSON."""
        tile = self.plan.tiling.tile_size
        return {"name": self.plan.config.name, "batch_size": self.num_examples, "tile": tile}

    @property
    def step(self) -> int:
        """The number of steps made."""
        assert self.model.step is not None
        return self.model.step

    @property
    def operation(self) -> Operation:
        """The operation of most steps."""
        if self.plan.config.training.per_example.clips or (self._with_norms and self._log_every == 1):
            return Operation.GRADIENTS_WITH_NORMS
        return Operation.GRADIENTS

    def on(self, group: ComputeGroup) -> Callable[[], dict[str, float]]:
        """Return a function that makes a step on `group`.

        The function returns the seconds of the step's phases, of `RUN` (from dispatch to the last answer) and of the
        whole "step".
        """
        timed = TimedGroup(group)
        return partial(self._make, compose_step(self.plan, self.arrays, timed, self.model), timed)

    def series_on(self, group: ComputeGroup) -> Callable[[], Samples] | None:
        """Return a function that makes a series of steps on `group`; None if training makes each step by itself.

        The function returns the seconds of the phases of each step: "compute", "wait" until the other workers have
        computed, "update", and "settle", from then to the beginning of the next step. It returns their sum, "step", and
        the processor seconds of the coordinator beside a step: "plan" and "log". If logged steps compute norms, where
        others do not, "statistics" is their additional time, as the share of one step.
        """
        step = compose_step(self.plan, self.arrays, group, self.model)
        series = compose_series(self.plan, self.arrays, group, step)
        if series is None or (self._with_norms and self._log_every == 1):
            return None
        make_step = self.on(group) if self._with_norms else None
        return partial(self._make_series, series, make_step)

    def close(self) -> None:
        """End the threads of the update, and close the metrics file."""
        self.model.close()
        self._logger.close()

    def _make(self, step: TrainingStep, group: TimedGroup) -> dict[str, float]:
        number = self.step + 1
        is_logged = number % min(self._log_every, LOG_EVERY) == 0
        with_norms = self._with_norms and is_logged
        group.restart()
        begin = monotonic()
        self._timer.restart()
        result = step.make(number, with_norms=with_norms, timer=self._timer)
        updated = monotonic()
        self.last_batch, seconds = result.batch, self._timer.seconds
        times = {
            "prepare": seconds[PREPARE] + group.before_dispatch,
            RUN_WITH_NORMS if with_norms and self._log_every > 1 else RUN: group.run_seconds,
            "update": seconds[UPDATE],
        }
        if isinstance(group.group, WorkerPool):
            times["dispatch"] = group.dispatch
        if NOISE in seconds:
            times["noise"] = seconds[NOISE]
        if is_logged:
            metrics = self._step_metrics.compute(number, result.batch)
            self._logger.log_step(number, metrics | {"lr": self.model.learning_rate(number)}, seconds_ago=0.0)
            # Logging happens once in `log_every` steps; this is the share of one step.
            times["logging"] = (monotonic() - updated) / self._log_every
        return times | {"step": monotonic() - begin}

    def _make_series(self, series: StepSeries, make_step: Callable[[], dict[str, float]] | None) -> Samples:
        first_step, deadline = self.step + 1, monotonic() + SECONDS
        logging: list[float] = []

        def is_last(step: int) -> bool:
            num_steps = step - first_step + 1
            return num_steps == SERIES_STEPS or (num_steps >= LEAST_CALLS and monotonic() > deadline)

        def is_logged(step: int) -> bool:
            return make_step is None and step % min(self._log_every, LOG_EVERY) == 0

        def log(result: StepResult) -> None:
            if is_logged(result.step):
                begin = time.thread_time()
                metrics = self._step_metrics.compute(result.step, result.batch)
                self._logger.log_step(result.step, metrics, seconds_ago=0.0)
                logging.append(time.thread_time() - begin)

        begin = time.thread_time()
        series.make(first_step, is_last, is_logged, log, lambda: True)
        planning = (time.thread_time() - begin - sum(logging)) / (self.step - first_step + 1)
        samples = self._phases_of_series(first_step) | {"plan": [planning]}
        samples["log"] = [statistics.mean(logging) / self._log_every] if logging else []
        if make_step is not None:
            usual = statistics.median(samples["step"])
            samples["statistics"] = [max(0.0, self._until_logged(make_step) - usual) / self._log_every]
        return samples

    def _phases_of_series(self, first_step: int) -> Samples:
        """Return the phases of the steps from `first_step` on that are still in the ring (`StepTimes`)."""
        times = self.arrays["steps.times"]
        steps = np.arange(max(first_step, self.step - len(times) + 1), self.step + 1)
        began, computed, all_computed, updated = times[steps % len(times)].T
        phases = {
            "compute": computed[:-1] - began[:-1],
            "wait": all_computed[:-1] - computed[:-1],
            "update": updated[:-1] - all_computed[:-1],
            "settle": began[1:] - updated[:-1],
            "step": began[1:] - began[:-1],
        }
        return {name: values.tolist() for name, values in phases.items()}

    def _until_logged(self, make_step: Callable[[], dict[str, float]]) -> float:
        """Make steps until one has been logged; return the seconds of that one."""
        while True:
            times = make_step()
            if "logging" in times:
                return times["step"]

    def add_norms_to_logging(self, medians: dict[str, float]) -> None:
        """Add to "logging" the time that logged steps take for norms, and remove `RUN_WITH_NORMS`."""
        if RUN_WITH_NORMS in medians:
            medians["logging"] += max(0.0, medians.pop(RUN_WITH_NORMS) - medians[RUN]) / self._log_every


class Trial:
    """The training that all measurements share, and functions that repeat and time calls.

    Parameters
    ----------
    plan : the plan of the training run.
    resources : kernels and shared arrays of the plan.
    folder : the directory for the metrics.
    messages : prints progress.
    interruption : the signal to stop at.
    """

    def __init__(
        self,
        plan: TrainingPlan,
        resources: ComputeResources,
        folder: Path,
        messages: Messages,
        interruption: Interruption,
    ) -> None:
        self.plan, self.resources, self.arrays, self.messages = plan, resources, resources.arrays, messages
        self.settings = plan.config.training
        self._interruption = interruption
        self.in_process = InProcessGroup(resources.computation)
        self.training = MeasuredTraining(plan, resources.arrays, folder, messages.warn)
        self.num_tiles = plan.tiling.num_tiles(self.training.round_size)

    def repeat(self, call: Callable[[], Mapping[str, float]], most: int = MOST_CALLS) -> Samples:
        """Call for SECONDS, and at least LEAST_CALLS times; return the values of each name."""
        samples: Samples = {}
        begin, count = monotonic(), 0
        while count < min(LEAST_CALLS, most) or (count < most and monotonic() < begin + SECONDS):
            self._interruption.check()
            for name, value in call().items():
                samples.setdefault(name, []).append(value)
            count += 1
        return samples

    def repeat_series(self, make_series: Callable[[], Samples]) -> Samples:
        """Make series of steps for SECONDS, and at least LEAST_CALLS steps; return the values of each name."""
        samples: Samples = {}
        begin = monotonic()
        while len(samples.get("step", ())) < LEAST_CALLS or monotonic() < begin + SECONDS:
            self._interruption.check()
            for name, values in make_series().items():
                samples.setdefault(name, []).extend(values)
        return samples

    def close(self) -> None:
        """Release the resources of the training."""
        self.training.close()

    def warm_up(self) -> None:
        """Make the warm-up steps in this process."""
        self.repeat(self.training.on(self.in_process), TRAINING_STEPS)

    def compare(self, calls: Mapping[int, Callable[[], object]]) -> dict[int, float]:
        """Return the median seconds of each call. The calls alternate, so that a disturbance affects all of them."""
        samples = self.repeat(lambda: {str(key): seconds_of(call) for key, call in calls.items()})
        return {key: statistics.median(samples[str(key)]) for key in calls}

    def shard_seconds(self, numbers_of_workers: Sequence[int]) -> dict[int, float]:
        """Return the seconds of a shard in this process, by number of tiles: powers of 2, and the workers' numbers."""
        training, tile_size = self.training, self.plan.tiling.tile_size
        powers = (2**k for k in range(self.num_tiles.bit_length()))
        at_once = (max(1, min(number, available_processors())) for number in numbers_of_workers)
        longest = (-(-self.num_tiles // number) for number in at_once)
        commands = {
            tiles: Command(training.operation, SplitName.TRAIN, 0, min(tiles * tile_size, training.round_size))
            for tiles in sorted({*powers, *longest})
        }
        return self.compare({tiles: partial(self.in_process.run, [command]) for tiles, command in commands.items()})


def seconds_of(call: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    begin = monotonic()
    call()
    return monotonic() - begin
