"""The lines that describe a run at its start and end, and its summary."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Sequence
from typing import Any

from partrain.analysis.run_table import duration
from partrain.config.schema.config import Config
from partrain.errors import RunError
from partrain.store.run_directory import RunDirectory
from partrain.training.coordinator import Coordinator
from partrain.training.plan import TrainingPlan
from partrain.training.privacy.settings import describe_private_training
from partrain.training.resources import TrainingResources

# Longer than any run takes; a larger number in a file means that the file is damaged.
MOST_SECONDS = 1e10


def describe_start(run: RunDirectory, resources: TrainingResources) -> list[str]:
    """Return the first lines that a training run prints: network, data, number of steps, processes, privacy."""
    plan = resources.plan
    training, dataset = plan.config.training, plan.dataset
    start = (
        f"{run.path}: {plan.network.parameters.size:,} parameters, {dataset.name} from {dataset.source}, "
        f"{plan.dataset.train.size:,} examples, {plan.num_steps:,} steps of "
        f"{training.batch_size}, on {describe_processes(resources.num_workers, resources.ranks)}"
    )
    if plan.accountant is None:
        return [start]
    return [start, *describe_private_training(training, plan.num_steps, plan.budget_steps, plan.accountant)]


def describe_end(run: RunDirectory, coordinator: Coordinator, plan: TrainingPlan, seconds: float) -> str:
    """Return the last line that a completed training run prints: total time, best epoch, the run's directory.

    Parameters
    ----------
    seconds : the seconds that the run took, over all of its sessions.
    """
    end = f"completed in {duration(seconds)}"
    if (best := coordinator.validation.best) is not None:
        epoch = best["step"] / plan.steps_per_epoch
        end += f"; best validation accuracy {best['validation/accuracy']:.2%} at epoch {epoch:.4g}"
    return f"{end}; the run is {run.path}"


def describe_newest_checkpoint(run: RunDirectory) -> str:
    """Return what is saved of a run that failed."""
    files = run.checkpoints.files()
    saved = f"its newest checkpoint is {files[-1].name}" if files else "it has no checkpoint"
    return f"the run is {run.path}; {saved}"


def describe_resume(run: RunDirectory, config: Config) -> str:
    """Return how to resume a run."""
    if config.data.name == "memory":
        return f"partrain.open_run({str(run.path)!r}).resume(data=…) in Python"
    return f"partrain resume {shlex.quote(str(run.path))}"


def describe_processes(num_workers: int, ranks_of_job: Sequence[dict[str, Any]] | None) -> str:
    """Return the processes that compute: "8 workers", or "3 ranks with 8, 8 and 4 workers".

    Parameters
    ----------
    num_workers : used without ranks.
    ranks_of_job : the number of workers of each rank, under "workers"; None without MPI.
    """
    if ranks_of_job is None:
        return f"{num_workers} worker{'s' * (num_workers > 1)}" if num_workers else "this process"
    numbers = [rank["workers"] for rank in ranks_of_job]
    ranks = f"{len(numbers)} rank{'s' * (len(numbers) > 1)}"
    if not any(numbers):
        return f"{ranks} without workers"
    if len(set(numbers)) == 1:
        return f"{ranks} with {numbers[0]} worker{'s' * (numbers[0] > 1)}{' each' * (len(numbers) > 1)}"
    return f"{ranks} with {', '.join(map(str, numbers[:-1]))} and {numbers[-1]} workers"


def summary(
    coordinator: Coordinator, resources: TrainingResources, seconds: dict[str, float], test: dict[str, float] | None
) -> dict[str, Any]:
    """Return the content of summary.json.

    Parameters
    ----------
    coordinator : the coordinator of the training, after its last step.
    resources : the resources of the training.
    seconds : seconds of each activity, over all sessions of the run.
    test : metrics of the test split; None if it was not evaluated.
    """
    plan, step = resources.plan, coordinator.step
    num_examples, privacy = plan.num_examples_until(step), plan.privacy_after(step)
    return {
        "steps": step,
        "epochs": step / plan.steps_per_epoch,
        "examples": num_examples,
        "train_seconds": round(seconds["train"], 4),
        "startup_seconds": round(seconds["startup"], 4),
        "evaluation_seconds": round(seconds["evaluation"], 4),
        "checkpoint_seconds": round(seconds["checkpoint"], 4),
        "total_seconds": round(sum(seconds.values()), 4),
        "examples_per_second": round(num_examples / seconds["train"], 1) if seconds["train"] else None,
        "workers": resources.total_workers,
        **({} if resources.ranks is None else {"ranks": len(resources.ranks)}),
        "peak_memory_bytes": coordinator.peak_memory_bytes,
        "final": coordinator.logger.latest,
        "best": coordinator.validation.best,
        "test": test,
        "stopped_early": coordinator.stopped_early,
        **({} if privacy is None else {"privacy": privacy}),
        "parameters_sha256": coordinator.model.parameters_sha256(),
    }


def seconds_until(run: RunDirectory, step: int, rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the seconds that a run took up to `step`, by activity.

    A session that ended normally has written them into the summary. For a session that was killed, only the sum is
    known, from the metrics; it is counted as training.
    """
    with contextlib.suppress(RunError, LookupError, TypeError, ValueError):
        summary = run.read_summary()
        if summary["steps"] == step:
            names = ("startup", "train", "evaluation", "checkpoint")
            return {name: min(float(summary[f"{name}_seconds"]), MOST_SECONDS) for name in names}
    times = [time_s for row in rows if isinstance(time_s := row.get("time_s"), int | float)]
    return {"train": max((float(time_s) for time_s in times if 0 <= time_s < MOST_SECONDS), default=0.0)}
