"""A training run from its beginning to its end: preparation, processes, directory, training, summary."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from partrain.config import Config
from partrain.coordinator import Coordinator
from partrain.interruption import Interrupted, Interruption
from partrain.kernels.compile_options import are_cached, load
from partrain.kernels.kernel_set import kernel_set
from partrain.messages import Messages
from partrain.parallel.machine import proportional_memory
from partrain.parallel.shared_arrays import SharedArrays
from partrain.parallel.tiles import num_tiles
from partrain.parallel.worker import Computation
from partrain.parallel.worker_pool import ComputeGroup, Inline, WorkerPool, start_fork_server
from partrain.preparation import Preparation, check_disk, check_memory, prepare
from partrain.provenance import provenance
from partrain.stopwatch import Stopwatch
from partrain.store.run_directory import RunDirectory
from partrain.store.training_log import TrainingLog


@dataclass(frozen=True)
class Place:
    """Where a new run goes: into `runs_dir` under a name of its own, or exactly to `run_dir`."""

    runs_dir: Path
    run_dir: Path | None = None

    @property
    def folder(self) -> Path:
        """The folder that the run's directory is made in."""
        return self.runs_dir if self.run_dir is None else self.run_dir.absolute().parent

    def create(self, name: str) -> RunDirectory:
        """Make the run's directory."""
        if self.run_dir is not None:
            return RunDirectory.create_at(self.run_dir)
        return RunDirectory.create(self.runs_dir, name, datetime.now(UTC))


def train_new_run(
    config: Config,
    place: Place,
    num_workers: int,
    *,
    command_line: Sequence[str],
    messages: Messages,
    interruption: Interruption,
) -> RunDirectory:
    """Train a new run.

    Parameters
    ----------
    config : as it was read; the run keeps it as it was resolved.
    place : where the run goes.
    num_workers : processes that compute; 0: this process does.
    command_line : for the record.
    messages, interruption : where to speak, and what to listen to.

    Returns
    -------
    The run's directory; the run is complete.

    Raises
    ------
    UserError
        Something that was given is wrong; nothing was made.
    FailedRun
        The run began and failed.
    Interrupted
        A signal asked to stop; the run is saved.

    Side effects
    ------------
    Makes the run's directory and, while it trains, processes and shared memory.
    """
    clock = Stopwatch("startup", "train", "evaluation", "checkpoint")
    kernels, dtype = kernel_set(config.training.kernels), config.training.dtype
    if num_workers and are_cached(kernels):
        start_fork_server(config.training.kernels, dtype)  # it starts while the data is read
    preparation = prepare(config, say=messages.say, warn=messages.warn)
    num_workers = _useful_workers(num_workers, preparation, messages)
    check_memory(preparation.memory_plan(num_workers))
    kept = preparation.config.checkpoints.keep_last + 2
    check_disk(place.folder, preparation.checkpoint_bytes, kept)
    load(kernels, dtype, announce=messages.say, warn=messages.warn)
    with _computing(preparation, num_workers, messages) as (group, arrays):
        run = place.create(preparation.config.name)
        with run.lock(), _log_of(run, messages):
            record = _begin_record(run, preparation, num_workers, command_line)
            coordinator = Coordinator(
                preparation,
                run,
                group,
                max(1, num_workers),
                arrays,
                kernels,
                messages=messages,
                interruption=interruption,
                clock=clock,
                measure_memory=lambda: proportional_memory([os.getpid(), *group.pids]),
            )
            messages.say(_greeting(run, preparation, num_workers))
            with _recorded_ending(run, record):
                _train_and_summarise(coordinator, run, num_workers, clock, messages, group)
                if interruption.received is not None:
                    saved = f"the run is saved at step {coordinator.step} in {run.path}"
                    raise Interrupted(interruption.received, saved)
    return run


def _useful_workers(num_workers: int, preparation: Preparation, messages: Messages) -> int:
    training = preparation.config.training
    tiles = num_tiles(min(training.batch_size, preparation.splits["train"].size), training.tile)
    if num_workers <= tiles:
        return num_workers
    messages.warn(
        f"a batch has {tiles} tiles (training.batch_size {training.batch_size}, training.tile {training.tile}); "
        f"{tiles} workers are started, not {num_workers}"
    )
    return tiles


@contextlib.contextmanager
def _computing(
    preparation: Preparation, num_workers: int, messages: Messages
) -> Iterator[tuple[ComputeGroup, SharedArrays]]:
    """Provide the shared arrays with the data set in them, and the processes that compute."""
    training = preparation.config.training
    specs, files = preparation.array_plan()
    arrays = SharedArrays(specs, files)
    try:
        for name, split in (("train", preparation.dataset.train), ("test", preparation.dataset.test)):
            for kind, values in (("images", split.images), ("labels", split.labels)):
                if f"{name}.{kind}" in specs:
                    arrays[f"{name}.{kind}"][:] = values
        normalisation = preparation.normalisation
        computation = Computation(
            preparation.network,
            training.kernels,
            training.dtype,
            training.tile,
            normalisation.mean,
            normalisation.std,
            arrays,
        )
        group: ComputeGroup
        if num_workers == 0:
            group = Inline(computation)
        else:
            max_restarts = preparation.config.workers.max_restarts
            group = WorkerPool(num_workers, computation, max_restarts=max_restarts, log=messages.say)
        try:
            yield group, arrays
        finally:
            group.close()
    finally:
        arrays.close()


@contextlib.contextmanager
def _log_of(run: RunDirectory, messages: Messages) -> Iterator[None]:
    log = TrainingLog(run.train_log_path)
    messages.attach_log(log.write)
    try:
        yield
    finally:
        messages.detach_log()
        log.close()


def _begin_record(
    run: RunDirectory, preparation: Preparation, num_workers: int, command_line: Sequence[str]
) -> dict[str, Any]:
    """Write config.yaml and run.json; return the latter's content."""
    dataset, normalisation = preparation.dataset, preparation.normalisation
    run.config_path.write_text(preparation.config.to_yaml(), encoding="utf-8")
    record = {
        "status": "running",
        "command_lines": [list(command_line)],
        "workers": num_workers,
        "started": _now(),
        "ended": None,
        "data": {
            "name": dataset.name,
            "source": dataset.source,
            "digest": dataset.digest,
            "class_names": list(dataset.class_names),
            "normalisation": {"mean": list(normalisation.mean), "std": list(normalisation.std)},
        },
        "config_digest": preparation.config.identity_digest(),
        "lineage": [],
        **provenance(),
    }
    run.write_run_json(record)
    return record


@contextlib.contextmanager
def _recorded_ending(run: RunDirectory, record: dict[str, Any]) -> Iterator[None]:
    """Write into run.json how the block ended."""
    ending: dict[str, Any] = {"status": "completed"}
    try:
        yield
    except Interrupted as interrupted:
        ending = {"status": "interrupted", "cause": str(interrupted)}
        raise
    except BaseException as error:
        ending = {"status": "failed", "cause": f"{error}" or type(error).__name__}
        raise
    finally:
        run.write_run_json(record | {"ended": _now()} | ending)


def _train_and_summarise(
    coordinator: Coordinator,
    run: RunDirectory,
    num_workers: int,
    clock: Stopwatch,
    messages: Messages,
    group: ComputeGroup,
) -> None:
    test: dict[str, float] | None = None
    try:
        coordinator.train()
        if coordinator.completed:
            test = coordinator.evaluate("test").metrics()
            messages.say(f"test accuracy {test['accuracy']:.2%}, loss {test['loss']:.4f}")
    finally:
        for name, number in group.num_tiles_computed.items():
            messages.note(f"{name} computed {number:,} tiles")
        run.write_summary(_summary(coordinator, num_workers, clock, test))


def _summary(
    coordinator: Coordinator, num_workers: int, clock: Stopwatch, test: dict[str, float] | None
) -> dict[str, Any]:
    seconds = clock.read()
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
        "parameters_sha256": coordinator.parameters_sha256(),
    }


def _greeting(run: RunDirectory, preparation: Preparation, num_workers: int) -> str:
    training, dataset = preparation.config.training, preparation.dataset
    who = "this process" if num_workers == 0 else f"{num_workers} workers"
    return (
        f"{run.path}: {preparation.network.parameters.size:,} parameters, {dataset.name} from {dataset.source}, "
        f"{preparation.splits['train'].size:,} examples, {preparation.num_steps:,} steps of "
        f"{training.batch_size}, on {who}"
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
