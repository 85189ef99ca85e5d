"""What each stage of a step's computation takes: the network's, forward and backward, and the coordinator's."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any

import numpy as np

from partrain.bench.trial import Array, Samples, Trial, seconds_of
from partrain.data.augmentation import Augmentation
from partrain.kernels import loops
from partrain.kernels.augmentation import AUGMENT
from partrain.network.execution import Execution, Factors, TrainingExamples
from partrain.network.fast_execution import FastExecution
from partrain.network.layers import Conv2d, Layer
from partrain.network.loops_execution import LoopsExecution
from partrain.parallel.update.parameter_update import ParameterUpdate


class _TimedStage:
    """A stage of the fast execution that notes the seconds of its passes."""

    def __init__(self, stage: Any) -> None:
        self._stage = stage
        self.layers: tuple[Layer, ...] = stage.layers
        self.border: tuple[int, int] = stage.border
        self.name = "+".join(layer.name for layer in self.layers)
        self.seconds: Samples = {"forward": [], "backward": []}
        self._needs_dx = False

    def forward(self, x: Array) -> Array:
        begin = monotonic()
        y: Array = self._stage.forward(x)
        self.seconds["forward"].append(monotonic() - begin)
        return y

    def backward(self, dy: Any, slots_TK: Array, tile: int, factors: Mapping[str, Factors], needs_dx: bool) -> Any:
        begin = monotonic()
        dx = self._stage.backward(dy, slots_TK, tile, factors, needs_dx)
        self.seconds["backward"].append(monotonic() - begin)
        self._needs_dx = needs_dx
        return dx

    def multiply_adds(self, direction: str) -> int:
        """Return those of an example; a dense layer's weight gradient is the coordinator's."""
        if direction == "forward":
            return sum(layer.multiply_adds for layer in self.layers)
        return sum(layer.multiply_adds * (isinstance(layer, Conv2d) + self._needs_dx) for layer in self.layers)


@dataclass(frozen=True)
class StageTimes:
    """The seconds of a stage's calls. A call is `units_a_call` of `unit`; `multiply_adds` are those of a unit."""

    name: str
    direction: str
    unit: str
    seconds: Sequence[float]
    units_a_call: int = 1
    multiply_adds: int = 0


def stage_facts(stage: StageTimes, peak_gflops: float) -> dict[str, Any]:
    """Return what goes into JSON: microseconds of a unit, and the rate where multiply-adds are known."""
    median = statistics.median(stage.seconds) / stage.units_a_call
    gflops = 2 * stage.multiply_adds / median / 1e9 if stage.multiply_adds else None
    return {
        "stage": stage.name,
        "pass": stage.direction,
        "per": stage.unit,
        "median_us": median * 1e6,
        "minimum_us": min(stage.seconds) / stage.units_a_call * 1e6,
        "calls": len(stage.seconds),
        "gflops": gflops,
        "share_of_peak": gflops and gflops / peak_gflops,
    }


def measure_execution(trial: Trial) -> list[StageTimes]:
    """Measure what a worker does with as many examples as it takes at once; the loops as a whole only."""
    network, arrays, training = trial.plan.network, trial.arrays, trial.training
    normalisation, tile, dtype = trial.plan.normalisation, training.tile, training.dtype
    timed: list[_TimedStage] = []
    execution: Execution
    if training.kernels == "fast":
        execution = FastExecution(network, arrays["parameters"], normalisation, tile)
        timed = [_TimedStage(stage) for stage in execution.stages]
        execution.stages[:] = timed
    else:
        execution = LoopsExecution(network, arrays["parameters"], normalisation, tile, dtype)
    n = min(execution.capacity, trial.trainer.num_examples)
    seed, augmentation = trial.plan.config.seed, None
    if training.augment is not None:
        augmentation = Augmentation(training.augment, network.input_shape, n, AUGMENT[training.kernels])
    dlogits = np.empty((n, network.num_outputs), dtype)
    factors = {
        layer.name: Factors(arrays[f"{layer.name}.inputs"][:n], arrays[f"{layer.name}.deltas"][:n])
        for layer in network.dense_layers
    }

    def call() -> dict[str, float]:
        # Other examples every time, as in a training.
        order = np.roll(arrays["indices"], n)
        arrays["indices"][:] = order
        indices = order[:n]
        labels = arrays["train.labels"][indices]
        images, places = arrays["train.images"], indices
        before = monotonic()
        if augmentation is not None:
            images, places = augmentation.apply(images, places, seed=seed, epoch=0, examples_N=indices)
        begin = monotonic()
        logits = execution.forward(images, places, TrainingExamples(seed, 0, indices))
        forward = monotonic()
        loops.softmax_cross_entropy(logits, labels, arrays["losses"][:n], arrays["predictions"][:n], dlogits)
        softmax = monotonic()
        execution.backward(dlogits, arrays["tile_sums"][: trial.plan.tiling.num_tiles(n)], factors)
        times = {"forward": forward - begin, "softmax": softmax - forward, "backward": monotonic() - softmax}
        if augmentation is not None:
            times["augmentation"] = begin - before
        for direction in ("forward", "backward"):
            inside = sum(stage.seconds[direction][-1] for stage in timed if stage.seconds[direction])
            times[f"rest of {direction}"] = times[direction] - inside
        return times

    trial.trainer.choose_batch()
    samples = trial.repeat(call)
    result = [StageTimes("gather, borders", "forward", "example", samples["rest of forward"], n)] if timed else []
    if augmentation is not None:
        result.append(StageTimes("augmentation", "forward", "example", samples["augmentation"], n))
    for stage in timed:
        result.append(
            StageTimes(stage.name, "forward", "example", stage.seconds["forward"], n, stage.multiply_adds("forward"))
        )
    multiply_adds = sum(layer.multiply_adds for layer in network.layers)
    result.append(StageTimes("all layers", "forward", "example", samples["forward"], n, multiply_adds))
    result.append(StageTimes("softmax", "both", "example", samples["softmax"], n))
    for stage in reversed(timed):
        if stage.seconds["backward"]:
            seconds, multiply_adds = stage.seconds["backward"], stage.multiply_adds("backward")
            result.append(StageTimes(stage.name, "backward", "example", seconds, n, multiply_adds))
    result.append(StageTimes("all layers", "backward", "example", samples["backward"], n))
    return result


def measure_coordinator(trial: Trial) -> list[StageTimes]:
    """Measure the update of the parameters, by one thread and by as many as it takes here, after real steps."""
    trainer, network, training = trial.trainer, trial.plan.network, trial.training
    updates = {
        number: ParameterUpdate(
            network, training.kernels, trial.arrays, trial.plan.tiling, training.dtype, trainer.adam, number
        )
        for number in sorted({1, trainer.update.num_threads})
    }
    commands = trainer.commands(1)

    def call() -> dict[str, float]:
        trainer.step(trial.inline, commands)
        step, n = trainer.num_steps, trainer.num_examples
        return {str(number): seconds_of(partial(u.apply, n, step)) for number, u in updates.items()}

    samples = trial.repeat(call)
    for update in updates.values():
        update.close()
    multiply_adds = trainer.num_examples * sum(layer.multiply_adds for layer in network.dense_layers)
    return [
        StageTimes(f"{number} thread" + "s" * (number > 1), "update", "step", samples[str(number)],
                   multiply_adds=multiply_adds)
        for number in updates
    ]  # fmt: skip
