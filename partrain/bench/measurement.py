"""All measurements of a machine, from a configuration to the results. They create no run and leave no files."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from partrain.bench.phases import SERIAL_PHASES, measure_phases, scaling, signal_seconds
from partrain.bench.stages import measure_coordinator, measure_execution, measure_kernels, stage_facts
from partrain.bench.step_model import StepCosts
from partrain.bench.trial import Trial, seconds_of
from partrain.config.reader import parse_config
from partrain.config.schema.config import Config
from partrain.kernels import peak
from partrain.kernels.simd.vectors import LANES
from partrain.parallel.array_plan import exchange_specs
from partrain.parallel.compute_resources import compute_resources
from partrain.parallel.update.parameter_update import Array
from partrain.parallel.update.piece_plan import useful_threads
from partrain.system.machine import available_processors
from partrain.system.messages import Messages
from partrain.system.process_directory import process_directory
from partrain.system.provenance import provenance
from partrain.system.signals import Interruption
from partrain.training.plan import TrainingPlan, plan_training
from partrain.training.step.composition import make_model_update, make_parameter_update
from partrain.training.step.gradient import BatchGradient

# The article's network, as in configs/mnist.yaml, on data that every machine has.
DEFAULT_CONFIG: dict[str, Any] = {
    "name": "bench",
    "data": {"name": "synthetic-digits", "train_examples": 6000, "validation_examples": 0},
    "network": [
        {"conv": {"filters": 8, "kernel": 5}},
        "relu",
        {"conv": {"filters": 8, "kernel": 5}},
        "relu",
        {"max_pool": {"window": 2}},
        "flatten",
        {"dense": {"units": 128}},
        "relu",
        {"dense": {"units": 10}},
    ],
    "training": {"optimizer": {"lr": 0.003}},
}

MODEL_CORES = (4, 8, 16)
MODEL_BATCHES = (32, 128, 256, 512)


def measure(
    config: Config | None, numbers_of_workers: Sequence[int] | None, messages: Messages, interruption: Interruption
) -> dict[str, Any]:
    """Measure this machine with a training run.

    Parameters
    ----------
    config : the training; None: DEFAULT_CONFIG.
    numbers_of_workers : the numbers of workers to measure besides 1; None: powers of 2, and the number of processors.
    messages : prints progress.
    interruption : the signal to stop at.

    Returns
    -------
    The results, for JSON: "machine", "training", "stages", "kernels", "phases", "scaling", "model".

    Raises
    ------
    UserError
        The configuration or the data cannot be used, or there is too little memory.
    FailedRun
        A value of the training is not finite, or the workers failed.

    Side effects
    ------------
    Starts processes and ends them. Writes metrics into a temporary directory and deletes it.
    """
    config = config or parse_config(DEFAULT_CONFIG, source="the built-in configuration")
    plan = plan_training(config, say=messages.say, warn=messages.warn)
    workers = _useful_numbers(plan, numbers_of_workers, messages)
    with contextlib.ExitStack() as at_end:
        resources = at_end.enter_context(
            compute_resources(
                plan.compute_plan(),
                workers[-1],
                messages,
                interruption,
                computes_here=True,
                more_kernels=(peak.multiply_adds,),
            )
        )
        folder = at_end.enter_context(tempfile.TemporaryDirectory(dir=process_directory()))
        messages.say("warming up with training steps, then measuring kernels")
        trial = Trial(plan, resources, Path(folder), messages, interruption)
        at_end.callback(trial.close)
        trial.warm_up()
        machine = _describe_machine(trial)
        stages = measure_execution(trial) + measure_coordinator(trial)
        kernels = measure_kernels(trial)
        shard_seconds = trial.shard_seconds(workers)
        phases = [measure_phases(trial, number, shard_seconds) for number in workers]
        return {
            "machine": machine,
            "training": _describe_training(trial),
            "stages": [stage_facts(stage, machine["peak_gflops"]) for stage in stages],
            "kernels": kernels,
            "phases": phases,
            "scaling": scaling(phases, trial),
            "model": _model(phases, shard_seconds, trial),
        }


def _useful_numbers(plan: TrainingPlan, asked_for: Sequence[int] | None, messages: Messages) -> list[int]:
    """Return the numbers of workers to measure: 1 and the given ones, at most the number of tiles."""
    tiles = plan.tiling.num_tiles(min(plan.config.training.batch_size, plan.dataset.train.size))
    asked = sorted({1, *(_powers_of_two(available_processors()) if asked_for is None else asked_for)})
    if asked[-1] > tiles:
        messages.warn(
            f"a batch has {tiles} tile{'s' * (tiles > 1)}: more workers would have nothing to compute and are not "
            "measured"
        )
    return sorted({min(number, tiles) for number in asked})


def _powers_of_two(most: int) -> list[int]:
    return [*(2**k for k in range(most.bit_length()) if 2**k < most), most]


def _describe_machine(trial: Trial) -> dict[str, Any]:
    sums, rounds = np.zeros(peak.SUMS * LANES, np.float32), 20_000
    seconds = trial.repeat(lambda: {"call": seconds_of(lambda: peak.multiply_adds(rounds, sums))})["call"]
    origin = provenance()
    return {
        "processor": origin["processor"]["name"],
        "processors": os.cpu_count(),
        "processors_available": available_processors(),
        "versions": origin["versions"],
        "lanes": LANES,
        "peak_gflops": rounds * peak.OPERATIONS_PER_ROUND / min(seconds) / 1e9,
    }


def _describe_training(trial: Trial) -> dict[str, Any]:
    plan, training = trial.plan, trial.settings
    return trial.training.facts | {
        "data": plan.dataset.name,
        "parameters": plan.network.parameters.size,
        "multiply_adds": sum(layer.multiply_adds for layer in plan.network.layers),
        "kernels": training.kernels,
        "dtype": training.dtype,
    }


def _model(phases: Sequence[Mapping[str, Any]], shard_seconds: Mapping[int, float], trial: Trial) -> dict[str, Any]:
    """Return the measured costs that the model uses, and the speed-ups that it predicts."""
    one = next(row for row in phases if row["workers"] == 1)
    # The model assumes one worker per core, so that the coordinator shares a core with a worker. So the signals' costs
    # come from the largest number of workers that the processors allow; with fewer, the coordinator has its own core.
    at_once = [row for row in phases if 1 <= row["workers"] <= available_processors()]
    updates = trial.compare({batch_size: _update(trial, batch_size) for batch_size in MODEL_BATCHES})
    if one["by_workers"]:
        updates = {batch_size: seconds + one["settle_us"] / 1e6 for batch_size, seconds in updates.items()}
    costs = StepCosts(
        tiling=trial.plan.tiling,
        serial=sum(one[f"{name}_us"] for name in SERIAL_PHASES if f"{name}_us" in one) / 1e6,
        signals=signal_seconds(at_once),
        shard=shard_seconds,
        update=updates,
        parts=_update_parts(trial, by_workers=one["by_workers"]),
    )
    return {
        "serial_us": costs.serial * 1e6,
        "by_workers": one["by_workers"],
        "signals_us": {str(cores): costs.signals(cores) * 1e6 for cores in (1, *MODEL_CORES)},
        "shard_us": {str(tiles): seconds * 1e6 for tiles, seconds in sorted(costs.shard.items())},
        "update_us": {str(batch_size): seconds * 1e6 for batch_size, seconds in costs.update.items()},
        "expected": [
            {
                "batch_size": batch_size,
                "cores": cores,
                "step_us": costs.step(batch_size, cores) * 1e6,
                "speed_up": costs.speed_up(batch_size, cores),
            }
            for batch_size in MODEL_BATCHES
            for cores in MODEL_CORES
        ],
    }


def _update_parts(trial: Trial, *, by_workers: bool) -> Callable[[int, int], int]:
    """Return how many threads or workers share an update, for a batch size and a number of workers."""
    if by_workers:
        return lambda batch_size, num_workers: num_workers
    if trial.settings.kernels == "fast" and trial.settings.privacy is None:
        return partial(useful_threads, trial.plan.network)
    return lambda batch_size, num_workers: 1


def _update(trial: Trial, batch_size: int) -> Callable[[], object]:
    """Return a function that updates the parameters with one thread, after a batch of `batch_size` examples."""
    return _update_with(trial, _results(trial, batch_size), batch_size, trial.training.step)


def _update_with(trial: Trial, arrays: Mapping[str, Array], batch_size: int, step: int) -> Callable[[], object]:
    plan = trial.plan
    update = make_parameter_update(plan, arrays, trial.training.model.optimizer, 1)
    batch = BatchGradient(np.arange(batch_size), 0.0, False, arrays, np.empty(0, np.int64), update)
    return partial(make_model_update(plan, update).apply, batch, step)


def _results(trial: Trial, batch_size: int) -> dict[str, Array]:
    """Return the results of a batch of `batch_size` examples: those of the last batch, repeated or cut."""
    training, plan = trial.training, trial.plan
    specs = exchange_specs(plan.network, batch_size, plan.tiling, trial.settings.dtype, batch_size)
    return {
        name: np.resize(
            trial.arrays[name][: trial.num_tiles if name == "tile_sums" else training.round_size], spec.shape
        )
        for name, spec in specs.items()
        if name not in ("parameters", "losses", "predictions", "confidences")
    }
