"""Measures the phases of a step for each number of workers."""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any

from partrain.bench.trial import LEAST_CALLS, RUN, Samples, Trial
from partrain.data.split_name import SplitName
from partrain.parallel.workers.commands import Command, Operation
from partrain.parallel.workers.compute_group import ComputeGroup
from partrain.parallel.workers.pool import WorkerPool

# In the order of a step that the coordinator takes part in. Only private training has the phase "noise".
PHASES = ("prepare", "dispatch", "compute", "wait", "update", "noise", "logging")
# In the order of a step that workers make by themselves. Only training with statistics has the phase "statistics".
SERIES_PHASES = ("compute", "wait", "update", "settle", "statistics")
# The coordinator's work beside such steps, in processor time.
BESIDE = ("plan", "log")
# The coordinator's work whose time does not depend on the batch size and the number of workers. The model counts noise
# as a part of the update.
SERIAL_PHASES = ("prepare", "logging", "statistics", *BESIDE)
# How long workers sleep before their wake-up time is measured.
ASLEEP_SECONDS = 0.0002


def measure_phases(trial: Trial, num_workers: int, shard_seconds: Mapping[int, float]) -> dict[str, Any]:
    """Measure the phases of steps with `num_workers` workers (0: this process computes), in microseconds.

    The first worker measures steps that workers make by themselves (`MeasuredTraining.series_on`); the key "by_workers"
    tells whether these were measured. Otherwise the coordinator measures, which knows nothing of the computation inside
    its workers. So "compute" is then the time that this process takes for the longest shard while nothing else runs,
    and "wait" is the remaining time until all workers have answered. "wait" may be slightly negative, because the
    caches held other data when the shard was measured.
    """
    training, tiling, wake = trial.training, trial.plan.tiling, None
    with contextlib.ExitStack() as at_end:
        group: ComputeGroup = trial.in_process
        if num_workers:
            trial.messages.say(f"measuring with {num_workers} worker{'s' * (num_workers > 1)}")
            group = at_end.enter_context(trial.resources.group(num_workers, max_restarts=0, log=trial.messages.say))
        shards = tiling.shards(0, training.round_size, group.num_at_once)
        tiles = [tiling.num_tiles(last - first) for first, last in shards]
        facts = {"workers": num_workers, "at_once": len(shards), "tiles_per_worker": [min(tiles), max(tiles)]}
        make_series = training.series_on(group)
        if make_series is not None:
            make_series()
            samples = trial.repeat_series(make_series)
            training.model.update.moments.collect()
            return facts | _series_facts(samples)
        make_step = training.on(group)
        trial.repeat(make_step, LEAST_CALLS)
        samples = trial.repeat(make_step)
        if isinstance(group, WorkerPool):
            wake = _wake_seconds(trial, group)
    compute = shard_seconds[max(tiles)] * -(-training.num_examples // training.round_size)
    medians = {name: statistics.median(values) for name, values in samples.items()} | {"compute": compute}
    training.add_norms_to_logging(medians)
    medians["wait"] = medians[RUN] - medians.get("dispatch", 0.0) - compute
    phases = [name for name in PHASES if name in medians]
    return facts | {
        "by_workers": False,
        **{f"{name}_us": medians[name] * 1e6 for name in phases},
        "sum_us": sum(medians[name] for name in phases) * 1e6,
        "step_us": medians["step"] * 1e6,
        "wake_us": None if wake is None else wake * 1e6,
        "steps": len(samples["step"]),
    }


def _series_facts(samples: Samples) -> dict[str, Any]:
    """Return the medians of the phases of steps that workers make by themselves, in microseconds."""
    medians = {name: statistics.median(values) for name, values in samples.items() if values}
    # A configuration that never logs within a series has no such work beside it.
    medians.setdefault("log", 0.0)
    phases = [name for name in SERIES_PHASES if name in medians]
    return {
        "by_workers": True,
        **{f"{name}_us": medians[name] * 1e6 for name in phases},
        "sum_us": sum(medians[name] for name in phases) * 1e6,
        "step_us": (medians["step"] + medians.get("statistics", 0.0)) * 1e6,
        **{f"{name}_us": medians[name] * 1e6 for name in BESIDE},
        "steps": len(samples["step"]),
    }


def signal_seconds(phases: Sequence[Mapping[str, Any]]) -> Callable[[int], float]:
    """Return the seconds for which a step with n workers waits for signals between processes, from measured `phases`.

    If the coordinator takes part in steps: the time to post n commands, and to wake workers. If workers make them by
    themselves: ⌈log₂ n⌉ times what two workers wait for each other; 0 if only one worker has been measured.

    Parameters
    ----------
    phases : results of `measure_phases` with one worker and more, at most as many as processors.
    """
    one, most = phases[0], phases[-1]
    if not most["by_workers"]:
        dispatch, wake = most["dispatch_us"] / most["workers"] / 1e6, most["wake_us"] / 1e6
        return lambda n: n * dispatch + wake
    if most is one:
        return lambda n: 0.0
    # One worker waits for nobody.
    waits = most["wait_us"] + most["settle_us"] - one["settle_us"]
    meetings = max(0.0, waits) / math.ceil(math.log2(most["workers"])) / 1e6
    return lambda n: math.ceil(math.log2(n)) * meetings


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
