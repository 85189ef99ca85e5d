"""Measures each stage of a step: the network's stages, forward and backward, and the coordinator's update."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any

import numpy as np

from partrain.bench.trial import Samples, Trial, seconds_of
from partrain.network.clipping import clipping_scales, gradient_norms
from partrain.network.execution import Execution, Factors, TrainingExamples
from partrain.network.fast_execution import FastExecution
from partrain.network.layers import Conv2d, Layer, Residual
from partrain.network.loops_execution import LoopsExecution
from partrain.parallel.workers.step_examples import ExampleChanges, StepExamples
from partrain.training.step.composition import make_model_update, make_parameter_update


class _TimedStage:
    """A stage of the fast execution, and the seconds of its passes."""

    def __init__(self, layers: tuple[Layer, ...], *, needs_dx: bool) -> None:
        self.layers = layers
        self.name = "+".join(layer.name for layer in self.layers)
        self.seconds: Samples = {"forward": [], "backward": []}
        self.passing = dict.fromkeys(self.seconds, 0.0)  # of the parts of a pass that is not yet complete
        self._needs_dx = needs_dx

    def end_pass(self) -> None:
        """Keep the seconds of a forward and a backward pass; a stage has none where it computes nothing."""
        for direction, seconds in self.passing.items():
            if seconds:
                self.seconds[direction].append(seconds)
                self.passing[direction] = 0.0

    def times(self, direction: str, n: int) -> StageTimes:
        """Return the measured seconds of the passes in a direction, each of `n` examples."""
        return StageTimes(self.name, direction, "example", self.seconds[direction], n, self._multiply_adds(direction))

    def _multiply_adds(self, direction: str) -> int:
        """Return the multiply-adds of an example. The coordinator computes the weight gradients of dense layers.

        Those of a residual layer are its inner layers'.
        """
        if isinstance(self.layers[0], Residual):
            return 0
        if direction == "forward":
            return sum(layer.multiply_adds for layer in self.layers)
        return sum(layer.multiply_adds * (isinstance(layer, Conv2d) + self._needs_dx) for layer in self.layers)


@dataclass(frozen=True)
class StageTimes:
    """The seconds of a stage's calls. Each call processes `units_per_call` of `unit`, each with `multiply_adds`."""

    name: str
    direction: str
    unit: str
    seconds: Sequence[float]
    units_per_call: int = 1
    multiply_adds: int = 0


def stage_facts(stage: StageTimes, peak_gflops: float) -> dict[str, Any]:
    """Return the result for JSON: microseconds per unit, and the rate if the multiply-adds are known."""
    median = statistics.median(stage.seconds) / stage.units_per_call
    gflops = 2 * stage.multiply_adds / median / 1e9 if stage.multiply_adds else None
    return {
        "stage": stage.name,
        "pass": stage.direction,
        "per": stage.unit,
        "median_us": median * 1e6,
        "minimum_us": min(stage.seconds) / stage.units_per_call * 1e6,
        "calls": len(stage.seconds),
        "gflops": gflops,
        "share_of_peak": gflops and gflops / peak_gflops,
    }


def measure_execution(trial: Trial) -> list[StageTimes]:
    """Measure a worker's computation for the examples of one call; for the plain loops, only forward and backward."""
    timed: list[_TimedStage] = []
    execution = _make_execution(trial, timed)
    n = min(execution.capacity, trial.training.round_size)
    trial.arrays["indices"][:] = np.arange(len(trial.arrays["indices"])) % trial.plan.dataset.train.size
    samples = trial.repeat(_ExecutionCall(trial, execution, timed, n))
    result = [StageTimes("gather, borders", "forward", "example", samples["rest of forward"], n)] if timed else []
    if "augmentation" in samples:
        result.append(StageTimes("augmentation", "forward", "example", samples["augmentation"], n))
    result += [stage.times("forward", n) for stage in timed if stage.seconds["forward"]]
    multiply_adds = sum(layer.multiply_adds for layer in trial.plan.network.layers)
    result.append(StageTimes("all layers", "forward", "example", samples["forward"], n, multiply_adds))
    result.append(StageTimes("softmax", "both", "example", samples["softmax"], n))
    result += [stage.times("backward", n) for stage in reversed(timed) if stage.seconds["backward"]]
    result.append(StageTimes("all layers", "backward", "example", samples["backward"], n))
    if "clipping" in samples:
        result.append(StageTimes("clipping", "backward", "example", samples["clipping"], n))
    return result


def _make_execution(trial: Trial, timed: list[_TimedStage]) -> Execution:
    """Return the execution of the configured kernels; `timed` receives its stages, if it has any."""
    network, parameters, plan = trial.plan.network, trial.arrays["parameters"], trial.plan
    tile, settings = plan.tiling.tile_size, trial.settings
    if settings.kernels == "loops":
        return LoopsExecution(network, parameters, plan.normalisation, tile, settings.dtype)
    execution = FastExecution(network, parameters, plan.normalisation, tile, keeps_gradients=settings.per_example.clips)
    timed += [_TimedStage(stage.layers, needs_dx=needs_dx) for stage, needs_dx in execution.stages]

    def time_stage(direction: str, number: int, run: Callable[[], None]) -> None:
        begin = monotonic()
        run()
        if number < len(timed):
            timed[number].passing[direction] += monotonic() - begin

    execution.time_stage = time_stage
    return execution


class _ExecutionCall:
    """Computes a batch of `n` training examples, different ones in each call; returns the seconds of each part."""

    def __init__(self, trial: Trial, execution: Execution, timed: Sequence[_TimedStage], n: int) -> None:
        network, settings, arrays = trial.plan.network, trial.settings, trial.arrays
        self._trial, self._execution, self._timed, self._n = trial, execution, timed, n
        self._seed, self._clip = trial.plan.config.seed, settings.per_example.clip
        self._clips, self._dtype = settings.per_example.clips, settings.dtype
        changes, dtype = ExampleChanges.of(settings), arrays["train.images"].dtype
        self._changes_images = settings.augment is not None or changes.mixes
        self._examples = StepExamples(
            changes,
            settings.kernels,
            n,
            arrays["train.labels"],
            network.input_shape,
            trial.plan.normalisation.mean,
            seed=self._seed,
            is_uint8=dtype == np.uint8,
        )
        self._dlogits = np.empty((n, network.num_outputs), settings.dtype)
        self._slots = arrays["tile_sums"][: trial.plan.tiling.num_tiles(n)]
        self._factors = {
            layer.name: Factors(arrays[f"{layer.name}.inputs"][:n], arrays[f"{layer.name}.deltas"][:n])
            for layer in network.dense_layers
        }

    def __call__(self) -> dict[str, float]:
        arrays, n = self._trial.arrays, self._n
        order = np.roll(arrays["indices"], n)
        arrays["indices"][:] = order
        indices = order[:n]
        training = TrainingExamples(self._seed, 0, indices)
        outputs = (*(arrays[name][:n] for name in ("losses", "predictions", "confidences")), self._dlogits)
        before = monotonic()
        images, places = self._examples.images(lambda taken: (arrays["train.images"], taken), training)
        begin = monotonic()
        logits = self._execution.forward(images, places, training)
        forward = monotonic()
        self._examples.compute_loss(logits, indices, outputs)
        softmax = monotonic()
        times = {"forward": forward - begin, "softmax": softmax - forward, **self._backward()}
        if self._changes_images:
            times["augmentation"] = begin - before
        for stage in self._timed:
            stage.end_pass()
        for direction in ("forward", "backward"):
            inside = sum(stage.seconds[direction][-1] for stage in self._timed if stage.seconds[direction])
            times[f"rest of {direction}"] = times[direction] - inside
        return times

    def _backward(self) -> dict[str, float]:
        begin = monotonic()
        if not self._clips:
            self._execution.backward(self._dlogits, self._slots, self._factors)
            return {"backward": monotonic() - begin}
        assert self._clip is not None
        squared_norms = self._trial.arrays["squared_norms"][: self._n]
        self._execution.measure(self._dlogits, self._factors, squared_norms)
        measured = monotonic()
        scales = clipping_scales(gradient_norms(squared_norms), self._clip, self._dtype)
        self._execution.sum_tiles(scales, self._slots, self._factors)
        return {"backward": measured - begin, "clipping": monotonic() - measured}


def measure_kernels(trial: Trial) -> list[dict[str, Any]]:
    """Measure the calls of kernels in a worker's computation; return results for JSON, the longest first.

    They have the microseconds of an example in all calls of a kernel, and the share of these in the whole computation.
    """
    if trial.settings.kernels == "loops":
        return []
    execution = _make_execution(trial, [])
    assert isinstance(execution, FastExecution)
    passing: dict[str, list[float]] = {}  # by kernel and direction

    def time_kernel(direction: str, name: str, run: Callable[[], None]) -> None:
        begin = monotonic()
        run()
        passing.setdefault(f"{name} {direction}", []).append(monotonic() - begin)

    execution.time_stage, execution.time_kernel = None, time_kernel
    n = min(execution.capacity, trial.training.round_size)
    compute = _ExecutionCall(trial, execution, (), n)
    calls: dict[str, int] = {}

    def call() -> dict[str, float]:
        passing.clear()
        compute()
        calls.update({key: len(seconds) for key, seconds in passing.items()})
        return {key: sum(seconds) for key, seconds in passing.items()}

    medians = {key: statistics.median(seconds) for key, seconds in trial.repeat(call).items()}
    return [
        {
            "kernel": key.partition(" ")[0],
            "pass": key.partition(" ")[2],
            "calls": calls[key],
            "median_us": median / n * 1e6,
            "share": median / sum(medians.values()),
        }
        for key, median in sorted(medians.items(), key=lambda item: -item[1])
    ]


def measure_coordinator(trial: Trial) -> list[StageTimes]:
    """Measure the update of the parameters after real steps, with one thread and with the number used in training."""
    training, network, plan = trial.training, trial.plan.network, trial.plan
    numbers = sorted({1, training.model.update.num_threads})
    parameter_updates = [make_parameter_update(plan, trial.arrays, training.model.optimizer, n) for n in numbers]
    updates = [make_model_update(plan, update) for update in parameter_updates]
    make_step = training.on(trial.in_process)

    def call() -> dict[str, float]:
        make_step()
        batch, step = training.last_batch, training.step
        return {str(n): seconds_of(partial(u.apply, batch, step)) for n, u in zip(numbers, updates, strict=True)}

    samples = trial.repeat(call)
    for update in parameter_updates:
        update.close()
    multiply_adds = training.num_examples * sum(layer.multiply_adds for layer in network.dense_layers)
    return [
        StageTimes(f"{n} thread" + "s" * (n > 1), "update", "step", samples[str(n)], multiply_adds=multiply_adds)
        for n in numbers
    ]
