"""Measures the phases of a step for each number of workers."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

from partrain.bench.trial import LEAST_CALLS, RUN, Trial
from partrain.data.split_name import SplitName
from partrain.parallel.workers.commands import Command, Operation
from partrain.parallel.workers.compute_group import ComputeGroup
from partrain.parallel.workers.pool import WorkerPool

# In the order of a step. `measure_phases` explains "wait". Only private training has the phase "noise".
PHASES = ("prepare", "dispatch", "compute", "wait", "update", "logging")
NOISE = "noise"
# Phases whose time does not depend on the batch size and the number of workers.
SERIAL_PHASES = ("prepare", NOISE, "logging")
# How long workers sleep before their wake-up time is measured.
ASLEEP_SECONDS = 0.0002


def measure_phases(trial: Trial, num_workers: int, shard_seconds: Mapping[int, float]) -> dict[str, Any]:
    """Measure the phases of steps with `num_workers` workers (0: this process computes), in microseconds.

    This process cannot measure the computation inside its workers. So "compute" is the time that this process takes for
    the longest shard while nothing else runs, and "wait" is the remaining time until all workers have answered. "wait"
    may be slightly negative, because the caches held other data when the shard was measured.
    """
    training, tiling, wake = trial.training, trial.plan.tiling, None
    with contextlib.ExitStack() as at_end:
        group: ComputeGroup = trial.in_process
        if num_workers:
            trial.messages.say(f"measuring with {num_workers} worker{'s' * (num_workers > 1)}")
            group = at_end.enter_context(trial.resources.group(num_workers, max_restarts=0, log=trial.messages.say))
        make_step = training.on(group)
        trial.repeat(make_step, LEAST_CALLS)
        samples = trial.repeat(make_step)
        if isinstance(group, WorkerPool):
            wake = _wake_seconds(trial, group)
        shards = tiling.shards(0, training.round_size, group.num_at_once)
    tiles = [tiling.num_tiles(last - first) for first, last in shards]
    compute = shard_seconds[max(tiles)] * -(-training.num_examples // training.round_size)
    medians = {name: statistics.median(values) for name, values in samples.items()} | {"compute": compute}
    training.add_norms_to_logging(medians)
    medians.setdefault("dispatch", 0.0)
    medians["wait"] = medians[RUN] - medians["dispatch"] - compute
    phases = [*PHASES[:-2], *([NOISE] if NOISE in medians else []), *PHASES[-2:]]
    return {
        "workers": num_workers,
        "at_once": len(shards),
        "tiles_per_worker": [min(tiles), max(tiles)],
        **{f"{name}_us": medians[name] * 1e6 for name in phases},
        "sum_us": sum(medians[name] for name in phases) * 1e6,
        "step_us": medians["step"] * 1e6,
        "wake_us": None if wake is None else wake * 1e6,
        "steps": len(samples["step"]),
    }


def _wake_seconds(trial: Trial, pool: WorkerPool) -> float:
    """Return the time from posting the last command to the last answer when workers have nothing to compute."""
    nothing = [Command(Operation.GRADIENTS, SplitName.TRAIN, 0, 0)] * pool.num_at_once

    def call() -> dict[str, float]:
        time.sleep(ASLEEP_SECONDS)  # as long as an update of the parameters takes
        pool.run(nothing)
        return {"wake": monotonic() - pool.dispatched_at}

    return statistics.median(trial.repeat(call)["wake"])


def scaling(phases: Sequence[Mapping[str, Any]], trial: Trial) -> list[dict[str, Any]]:
    """Return the examples per second, and the speed-up against one worker, for each number of workers."""
    one = next(row["step_us"] for row in phases if row["workers"] == 1)
    return [
        {
            "workers": row["workers"],
            "tiles_per_worker": row["tiles_per_worker"],
            "examples_per_s": trial.training.num_examples / row["step_us"] * 1e6,
            "speed_up": one / row["step_us"],
        }
        for row in phases
    ]
