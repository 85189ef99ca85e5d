"""What is said of a run in a line when it begins, and in summary.json when it ends."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from partrain.coordinator import Coordinator
from partrain.errors import RunError
from partrain.session import Session
from partrain.store.run_directory import RunDirectory
from partrain.training_resources import TrainingResources

# More than any run takes: what a damaged file says beyond it is not believed.
MOST_SECONDS = 1e10


def greeting(run: RunDirectory, resources: TrainingResources, session: Session) -> str:
    """Return what a training begins with: network, data, length, and who computes."""
    preparation = resources.preparation
    training, dataset = preparation.config.training, preparation.dataset
    who = (
        "this process"
        if resources.num_workers == 0
        else f"{resources.num_workers} worker" + "s" * (resources.num_workers > 1)
    )
    if session.ranks is not None:
        size = session.ranks.group.size
        who = f"{size} rank{'s' * (size > 1)}, this one with {who}"
    return (
        f"{run.path}: {preparation.network.parameters.size:,} parameters, {dataset.name} from {dataset.source}, "
        f"{preparation.splits['train'].size:,} examples, {preparation.num_steps:,} steps of "
        f"{training.batch_size}, on {who}"
    )


def summary(
    coordinator: Coordinator, num_workers: int, seconds: dict[str, float], test: dict[str, float] | None
) -> dict[str, Any]:
    """Return what goes into summary.json.

    Parameters
    ----------
    coordinator : of the training, after its last step.
    num_workers : that computed.
    seconds : of each activity, over all sessions of the run.
    test : metrics of the test split, if it was evaluated.
    """
    num_examples = coordinator.num_examples_until(coordinator.step)
    return {
        "steps": coordinator.step,
        "epochs": coordinator.step / coordinator.steps_per_epoch,
        "examples": num_examples,
        "train_seconds": round(seconds["train"], 4),
        "startup_seconds": round(seconds["startup"], 4),
        "evaluation_seconds": round(seconds["evaluation"], 4),
        "checkpoint_seconds": round(seconds["checkpoint"], 4),
        "total_seconds": round(sum(seconds.values()), 4),
        "examples_per_second": round(num_examples / seconds["train"], 1) if seconds["train"] else None,
        "workers": num_workers,
        "peak_memory_bytes": coordinator.peak_memory_bytes,
        "final": coordinator.metrics,
        "best": coordinator.best,
        "test": test,
        "stopped_early": coordinator.stopped_early,
        **({"privacy": coordinator.privacy} if coordinator.privacy else {}),
        "parameters_sha256": coordinator.parameters_sha256(),
    }


def seconds_until(run: RunDirectory, step: int, rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the seconds that a run took until `step`, by activity.

    A session that ended in order wrote them into the summary. Of one that was killed only the sum is known, from
    the metrics; it counts as training.
    """
    with contextlib.suppress(RunError, LookupError, TypeError, ValueError):
        summary = run.read_summary()
        if summary["steps"] == step:
            names = ("startup", "train", "evaluation", "checkpoint")
            return {name: min(float(summary[f"{name}_seconds"]), MOST_SECONDS) for name in names}
    times = [time_s for row in rows if isinstance(time_s := row.get("time_s"), int | float)]
    return {"train": max((float(time_s) for time_s in times if 0 <= time_s < MOST_SECONDS), default=0.0)}
