"""Where the time of a step goes, for each number of workers."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

from partrain.bench.trial import LEAST_CALLS, Trial
from partrain.data.split_name import SplitName
from partrain.parallel.workers.commands import Command, Operation
from partrain.parallel.workers.compute_group import ComputeGroup
from partrain.parallel.workers.pool import WorkerPool

# In the order of a step. What `wait` is: see `measure_phases`.
PHASES = ("prepare", "dispatch", "compute", "wait", "update", "logging")
SERIAL_PHASES = ("prepare", "logging")
# How long workers are left alone before the time that waking them takes is measured.
ASLEEP_SECONDS = 0.0002


def measure_phases(trial: Trial, num_workers: int, shard_seconds: Mapping[int, float]) -> dict[str, Any]:
    """Measure the phases of steps by so many workers (0: by this process), in microseconds.

    What the workers compute cannot be seen from here. `compute` is what the longest shard takes in this process while
    nothing else is done; `wait` is the rest of the time until all workers have answered. It can be a little below
    zero, for that shard may have been computed with other things in the caches.
    """
    trainer, wake = trial.trainer, None
    with contextlib.ExitStack() as at_end:
        group: ComputeGroup = trial.inline
        if num_workers:
            trial.messages.say(f"measuring with {num_workers} worker{'s' * (num_workers > 1)}")
            group = at_end.enter_context(trial.resources.group(num_workers, max_restarts=0, log=trial.messages.say))
        commands = trainer.commands(group.num_at_once)
        trial.repeat(lambda: trainer.step(group, commands), LEAST_CALLS)
        samples = trial.repeat(lambda: trainer.step(group, commands))
        if isinstance(group, WorkerPool):
            wake = _wake_seconds(trial, group)
    tiles = [trial.plan.tiling.num_tiles(command.last - command.first) for command in commands]
    compute = shard_seconds[max(tiles)]
    medians = {name: statistics.median(values) for name, values in samples.items()} | {"compute": compute}
    medians.setdefault("dispatch", 0.0)
    medians["wait"] = medians["run"] - medians["dispatch"] - compute
    return {
        "workers": num_workers,
        "at_once": len(commands),
        "tiles_per_worker": [min(tiles), max(tiles)],
        **{f"{name}_us": medians[name] * 1e6 for name in PHASES},
        "sum_us": sum(medians[name] for name in PHASES) * 1e6,
        "step_us": medians["step"] * 1e6,
        "wake_us": None if wake is None else wake * 1e6,
        "steps": len(samples["step"]),
    }


def _wake_seconds(trial: Trial, pool: WorkerPool) -> float:
    """Return how long it takes, from the last command on, until workers that have nothing to compute have answered."""
    nothing = [Command(Operation.GRADIENTS, SplitName.TRAIN, 0, 0)] * pool.num_at_once

    def call() -> dict[str, float]:
        time.sleep(ASLEEP_SECONDS)  # as they are in a training, while the coordinator updates the parameters
        pool.run(nothing)
        return {"wake": monotonic() - pool.dispatched_at}

    return statistics.median(trial.repeat(call)["wake"])


def scaling(phases: Sequence[Mapping[str, Any]], trial: Trial) -> list[dict[str, Any]]:
    """Return examples per second, and the speed-up against one worker."""
    one = next(row["step_us"] for row in phases if row["workers"] == 1)
    return [
        {
            "workers": row["workers"],
            "tiles_per_worker": row["tiles_per_worker"],
            "examples_per_s": trial.trainer.num_examples / row["step_us"] * 1e6,
            "speed_up": one / row["step_us"],
        }
        for row in phases
    ]
