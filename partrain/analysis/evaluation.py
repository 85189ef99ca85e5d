"""Evaluates a trained run. It takes no lock, so it does not disturb training in progress."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from partrain.analysis.classification_report import classification_report
from partrain.analysis.trained_run import TrainedRun, Weights, load_trained_run
from partrain.data.dataset import Dataset, Split
from partrain.data.loading import load_dataset, moved_data
from partrain.data.split_name import SplitName
from partrain.errors import DataError, RunError
from partrain.parallel.array_plan import evaluation_specs, norm_specs
from partrain.parallel.compute_plan import ComputePlan
from partrain.parallel.compute_resources import compute_resources
from partrain.parallel.memory_plan import memory_of_plots
from partrain.parallel.split_evaluation import TILES_PER_COMMAND, Evaluation, evaluate_split
from partrain.parallel.workers.fork_server import start_fork_server
from partrain.parallel.workers.tiles import Tiling
from partrain.store.run_directory import RunDirectory
from partrain.system.messages import Messages
from partrain.system.signals import Interruption

# The interval between two messages about the progress of a long evaluation.
PROGRESS_SECONDS = 5.0
# Commands per worker between two checks for signals and progress: few, because the loops take seconds for them.
COMMANDS_PER_CHECK = 8


@dataclass(frozen=True, eq=False)
class EvaluatedRun:
    """An evaluated run: the trained run, the examples, and the report as it is written into the run."""

    trained: TrainedRun
    examples: Split
    report: dict[str, Any]


def evaluate_run(
    path: Path,
    split: SplitName,
    checkpoint: str,
    num_workers: int,
    messages: Messages,
    interruption: Interruption,
    dataset: Dataset | None = None,
    *,
    data_path: str | None = None,
    weights: Weights = "raw",
) -> EvaluatedRun:
    """Evaluate a run's checkpoint on a split of its data.

    Parameters
    ----------
    path : the run's directory; another process may be writing into it.
    split : the split to evaluate.
    checkpoint : "last", "best" or a file, see `load_trained_run`.
    num_workers : number of worker processes; 0: compute in this process.
    messages, interruption : messages to the user, and the signals that end the evaluation.
    dataset : the run's data, if it is in memory.
    data_path : where the run's data is; None: where it was in training.
    weights : "ema": the averaged weights.

    Raises
    ------
    UserError
        The run, the checkpoint or the data cannot be used, or there is too little memory.
    FailedRun
        The workers failed.
    Interrupted
        A signal was received.

    Side effects
    ------------
    Starts processes, and ends them. Writes the report into the run.
    """
    trained, dataset, num_workers = prepare_evaluation(
        path, split, checkpoint, num_workers, messages, dataset, data_path, weights
    )
    examples = dataset.splits[split]
    source = trained.checkpoint.name + ", averaged weights" * (weights == "ema")
    messages.say(f"{path}: evaluating step {trained.step:,} ({source}) on {examples.size:,} {split} examples")
    evaluation, seconds = compute_evaluation(trained, dataset, split, num_workers, messages, interruption)
    messages.say(f"{examples.size:,} examples in {seconds:.2f} s ({examples.size / seconds:,.0f} examples/s)")
    report = report_of(
        evaluation,
        trained.class_names,
        split=split,
        data_digest=dataset.digest,
        checkpoint=trained.checkpoint.name,
        step=trained.step,
        privacy=trained.privacy,
        examples=examples,
    )
    if weights != "raw":
        report["weights"] = weights
    write_report(trained.run, report, messages.warn)
    return EvaluatedRun(trained, examples, report)


def prepare_evaluation(
    path: Path,
    split: SplitName,
    checkpoint: str,
    num_workers: int,
    messages: Messages,
    dataset: Dataset | None = None,
    data_path: str | None = None,
    weights: Weights = "raw",
) -> tuple[TrainedRun, Dataset, int]:
    """Load the run and its data for an evaluation.

    Parameters and exceptions are those of `evaluate_run`.

    Returns
    -------
    The run, its data, and the number of workers: `num_workers`, or less if there are not enough examples for them.
    """
    trained = load_trained_run(path, checkpoint, messages.warn, weights)
    training = trained.config.training
    if num_workers:
        start_fork_server(training.kernels, training.dtype)  # it starts while this process reads the data
    dataset = load_run_data(trained, messages, data_path, dataset)
    require_fitting_data(trained, dataset, messages.warn)
    num_examples = dataset.splits[split].size
    if num_examples == 0:
        raise RunError(f"{path}: its data has no {split} examples. Choose another --split.")
    return trained, dataset, min(num_workers, len(Tiling(training.tile).chunks(0, num_examples, TILES_PER_COMMAND)))


def load_run_data(
    trained: TrainedRun, messages: Messages, data_path: str | None = None, dataset: Dataset | None = None
) -> Dataset:
    """Load the data of a run.

    Parameters
    ----------
    data_path : where it is; None: where it was in training.
    dataset : the data, if it is in memory.

    Raises
    ------
    UserError
        It is not there, or cannot be used.
    """
    config, data = trained.config, moved_data(trained.config.data, data_path)
    if dataset is None and data.path is not None and not os.path.exists(os.path.expanduser(data.path)):
        raise DataError(f"{data.path}: the data of {trained.run.path} is not there. Give its path with --data PATH.")
    return load_dataset(data, config.seed, say=messages.say, warn=messages.warn, dataset=dataset)


def report_of(
    evaluation: Evaluation,
    class_names: tuple[str, ...],
    *,
    split: str,
    data_digest: str,
    checkpoint: str,
    step: int,
    privacy: dict[str, Any] | None = None,
    examples: Split | None = None,
) -> dict[str, Any]:
    """Return the report of an evaluation: its figures, and the split, data, checkpoint and step that they belong to.

    If the `examples` are image files, the report names the files of the examples that it lists.
    """
    origin: dict[str, Any] = {"split": split, "data_digest": data_digest, "checkpoint": checkpoint, "step": step}
    if privacy is not None:
        origin["privacy"] = privacy
    return origin | classification_report(evaluation, class_names, examples)


def write_report(run: RunDirectory, report: dict[str, Any], warn: Callable[[str], None]) -> None:
    """Write the report into the run; a failure is only a warning, because the report is printed as well."""
    name = "-".join([report["split"], *([report["weights"]] if "weights" in report else [])])
    try:
        run.write_evaluation(name, report)
    except OSError as error:
        warn(f"{run.evaluation_path(name)}: cannot be written: {error.strerror}")


def require_fitting_data(trained: TrainedRun, dataset: Dataset, warn: Callable[[str], None]) -> None:
    """Check that a data set fits the network; warn if it is not the data set that the network was trained on.

    Raises
    ------
    DataError
        As `require_fitting_images`.
    """
    require_fitting_images(trained, dataset)
    name = f"{dataset.name} from {dataset.source}"
    if trained.data_digest is not None and dataset.digest != trained.data_digest:
        warn(
            f"the data changed after the training: its digest was {trained.data_digest[:12]}…, that of {name} "
            f"is {dataset.digest[:12]}…"
        )


def require_fitting_images(trained: TrainedRun, dataset: Dataset) -> None:
    """Check that a data set has the images and classes that the network was trained on.

    Raises
    ------
    DataError
        The images have another shape or dtype, or there are more classes than outputs.
    """
    name = f"{dataset.name} from {dataset.source}"
    if dataset.image_shape != trained.network.input_shape or dataset.image_dtype != trained.image_dtype:
        raise DataError(
            f"{name}: its images are {dataset.image_dtype}{list(dataset.image_shape)}, but the run was trained on "
            f"{trained.image_dtype}{list(trained.network.input_shape)}. Restore the data that it was trained on."
        )
    if len(dataset.class_names) > trained.network.num_outputs:
        raise DataError(
            f"{name}: has {len(dataset.class_names)} classes, but the network has {trained.network.num_outputs} "
            "outputs. Restore the data that it was trained on."
        )


def compute_evaluation(
    trained: TrainedRun,
    dataset: Dataset,
    split: SplitName,
    num_workers: int,
    messages: Messages,
    interruption: Interruption,
    with_norms: bool = False,
) -> tuple[Evaluation, float]:
    """Evaluate a trained network on a split of a data set that fits it.

    Parameters
    ----------
    trained, dataset, split, num_workers, messages, interruption : as in `evaluate_run`.
    with_norms : also compute the norm of each example's gradient.

    Returns
    -------
    The evaluation, and the seconds that computing took.

    Raises
    ------
    ResourceError, FailedRun, Interrupted
        As in `evaluate_run`.
    """
    plan = _plan_evaluation(trained, dataset, split, with_norms=with_norms)
    max_restarts, num_examples = trained.config.workers.max_restarts, dataset.splits[split].size
    with (
        compute_resources(plan, num_workers, messages, interruption) as resources,
        resources.group(num_workers, max_restarts=max_restarts, log=messages.say) as group,
    ):
        resources.arrays["parameters"][:] = trained.parameters
        started = reported = time.monotonic()

        def follow(num_done: int) -> None:
            nonlocal reported
            interruption.check()
            if num_done < num_examples and time.monotonic() > reported + PROGRESS_SECONDS:
                reported = time.monotonic()
                messages.say(f"{num_done:,} of {num_examples:,} examples")

        commands_per_round = COMMANDS_PER_CHECK * max(1, num_workers)
        tiling = resources.computation.tiling
        evaluation = evaluate_split(group, resources.arrays, split, tiling, follow, commands_per_round, with_norms)
        return evaluation, max(time.monotonic() - started, np.finfo(float).tiny)


def _plan_evaluation(trained: TrainedRun, dataset: Dataset, split: SplitName, *, with_norms: bool) -> ComputePlan:
    training, network = trained.config.training, trained.network
    examples = dataset.splits[split]
    exchange = evaluation_specs(network, training.dtype, examples.size)
    if with_norms:
        exchange |= norm_specs(network, examples.size)
    return ComputePlan(
        purpose="the evaluation",
        network=network,
        training=training,
        normalisation=trained.normalisation,
        splits={split: examples},
        exchange=exchange,
        temporary_bytes=memory_of_plots(),
        shared=dataset.memory,
    )
