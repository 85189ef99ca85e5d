"""A training run from its beginning to its end: preparation, processes, directory, training, summary."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from partrain.config import Config
from partrain.coordinator import Coordinator
from partrain.data.dataset import Dataset
from partrain.errors import ConfigError, FailedRun, RunError
from partrain.initial_parameters import InitialParameters
from partrain.interruption import Interrupted, Interruption
from partrain.kernels.compile_options import are_cached, load
from partrain.kernels.kernel_set import KernelSet, kernel_set
from partrain.kill_switch import kill_point
from partrain.messages import Messages
from partrain.parallel.machine import proportional_memory
from partrain.parallel.rank_exchange import rank_share
from partrain.parallel.ranked_group import RankedGroup
from partrain.parallel.shared_arrays import SharedArrays
from partrain.parallel.shared_splits import share_splits
from partrain.parallel.tiles import num_tiles
from partrain.parallel.worker import Computation
from partrain.parallel.worker_pool import ComputeGroup, start_fork_server, start_group
from partrain.plots.run_plots import write_plots
from partrain.preparation import Preparation, check_disk, check_memory, num_steps, prepare
from partrain.privacy_settings import NOT_PRIVATE, private_greeting
from partrain.rank_agreement import require_agreement
from partrain.rank_job import RankJob
from partrain.resumption import (
    Horizon,
    config_to_resume,
    newest_state,
    require_same_data,
    require_steps_ahead,
    require_trained_here,
    why_stopped_early,
)
from partrain.run_evaluation import report_of, write_report
from partrain.run_record import first_record, next_record, now, read_record
from partrain.stopwatch import Stopwatch
from partrain.store import checkpoint
from partrain.store.checkpoint import checkpoint_path
from partrain.store.durable_files import write_durably
from partrain.store.metrics_log import cut_back, read_metrics
from partrain.store.run_directory import Place, RunDirectory, writing_into
from partrain.store.training_log import TrainingLog
from partrain.trained_run import padded_names

if TYPE_CHECKING:  # its import starts MPI
    from partrain.parallel.mpi_group import MpiGroup

# More than any run takes: what a damaged file says beyond it is not believed.
MOST_SECONDS = 1e10


@dataclass(frozen=True)
class RankSession:
    """What a rank of an MPI job has besides: the others, and the signals that it receives itself."""

    group: MpiGroup
    received: Interruption


@dataclass(frozen=True)
class Session:
    """One command that trains: how it was called, how it speaks, what it listens to, and its time.

    Where there are ranks, it listens to what all of them have agreed on.
    """

    num_workers: int
    command_line: Sequence[str]
    messages: Messages
    interruption: Interruption
    clock: Stopwatch = field(default_factory=lambda: Stopwatch("startup", "train", "evaluation", "checkpoint"))
    ranks: RankSession | None = None

    @property
    def leads(self) -> bool:
        """Whether this process keeps the run, and speaks."""
        return self.ranks is None or self.ranks.group.rank == 0

    def give_to_ranks(self, job: RankJob | None) -> None:
        """Tell the other ranks what to do; None: nothing."""
        if self.ranks is not None:
            self.ranks.group.broadcast(RankJob.encode(job))


@dataclass(frozen=True)
class _Computing:
    """What a training computes with, while it lasts."""

    preparation: Preparation
    num_workers: int
    kernels: KernelSet
    arrays: SharedArrays
    group: ComputeGroup


def train_new_run(
    config: Config,
    place: Place,
    session: Session,
    initial: InitialParameters | None = None,
    given: Dataset | None = None,
) -> RunDirectory:
    """Train a new run.

    Parameters
    ----------
    config : as it was read; the run keeps it as it was resolved.
    place : where the run goes.
    session : `num_workers` 0: this process computes.
    initial : what to begin with, in place of values that are drawn.
    given : the data set, where it is in memory; else it is loaded.

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

    def check(preparation: Preparation) -> None:
        if initial is not None:
            initial.require_fit(preparation.network)

    session.give_to_ranks(RankJob(config, tensors=initial.arrays if initial else {}))
    with _computing(config, place.folder, session, check, given) as computing:
        preparation = computing.preparation
        kill_point("coordinator: before the run is made")
        run = place.create(preparation.config.name)
        with run.lock(), _log_of(run, session.messages):
            try:
                record = first_record(preparation, session.command_line, computing.num_workers)
                coordinator = _coordinator(run, computing, session)
                with writing_into(run):
                    write_durably(run.config_path, preparation.config.to_yaml().encode())
                    if initial is not None:
                        coordinator.begin_with(initial.vector(preparation.network, preparation.config.training.dtype))
                        record["initialised_from"] = initial.origin(preparation.network)
                        session.messages.say(f"begins with the parameters of {initial.run}, step {initial.step:,}")
                    run.write_run_json(record)  # with it, the directory is a run
                session.interruption.check()
            except BaseException:
                run.discard()
                raise
            _train(coordinator, run, record, computing, session, earlier_seconds={})
    return run


def resume_run(path: Path, overrides: Sequence[str], horizon: Horizon, session: Session) -> RunDirectory:
    """Go on with a run from its newest good checkpoint, to the bits of the run that was never stopped.

    Parameters
    ----------
    path : the run's directory.
    overrides : `KEY=VALUE` texts for runtime fields of the configuration.
    horizon : how much further to train than the run was to.
    session : as for a new run; the number of workers may be another one.

    Returns
    -------
    The run's directory; the run is complete. If it was complete before, that is said, and nothing done.

    Raises
    ------
    UserError
        The run cannot be resumed: it is being written, its configuration or data changed, it has no checkpoint.
    FailedRun, Interrupted
        As for a new run.

    Side effects
    ------------
    Cuts the metrics back to the checkpoint's step; then as for a new run.
    """
    messages = session.messages
    run = RunDirectory.open(path)
    with run.lock():
        before = read_record(run)
        require_trained_here(before, path)
        config = config_to_resume(run.config_path, before, overrides, horizon, messages.warn)
        state = newest_state(run, config, before, messages.warn)
        if before["status"] == "completed" and state is not None:
            reason = why_stopped_early(config, state, before)
            if reason is not None:
                messages.say(
                    f"{run.path} is complete: it stopped early at step {state.step}: {reason}; "
                    f"to train on from its parameters, begin a new run with --init-from {run.path}"
                )
                session.give_to_ranks(None)
                return run
            if state.step == num_steps(config):
                messages.say(
                    f"{run.path} is complete: {state.step} steps; to go further, raise --epochs or --max-steps"
                )
                session.give_to_ranks(None)
                return run
        if state is not None:
            require_steps_ahead(state, config, horizon, run.path)

        if state is None:
            session.give_to_ranks(RankJob(config))
        else:
            session.give_to_ranks(RankJob(config, state.tensors, state.metadata))

        def check(preparation: Preparation) -> None:
            require_same_data(preparation, before, run.path)

        with _log_of(run, messages), _computing(config, run.path, session, check) as computing:
            preparation = computing.preparation
            step = 0 if state is None else state.step
            record = next_record(before, preparation.config, step, session.command_line, computing.num_workers)
            for difference in record["lineage"][-1]["differences"]:
                messages.warn(f"the bits may differ from those of the run so far: {difference}")
            with writing_into(run):
                num_cut = cut_back(run.metrics_path, step)
                kill_point("coordinator: after the metrics were cut back")
                run.write_run_json(record)  # first: what config.yaml says of the horizon does not count
                write_durably(run.config_path, preparation.config.to_yaml().encode())
                rows = read_metrics(run.metrics_path)
            coordinator = _coordinator(run, computing, session)
            earlier_seconds = _seconds_until(run, step, rows)
            if state is not None:
                coordinator.restore(state, rows, sum(earlier_seconds.values()))
            cut = f"; {num_cut} later lines of metrics were set aside" if num_cut else ""
            messages.say(f"resumed from step {step}{cut}")
            _train(coordinator, run, record, computing, session, earlier_seconds)
    return run


def follow_run(job: RankJob, session: Session) -> None:
    """Take part in the training that rank 0 keeps: the same steps and evaluations, and nothing is written.

    Raises
    ------
    UserError, FailedRun, Interrupted
        As for a new run.
    """
    with _computing(job.config, None, session, lambda preparation: None) as computing:
        preparation = computing.preparation
        coordinator = _coordinator(None, computing, session)
        if job.metadata is not None:
            coordinator.restore(checkpoint.Checkpoint(job.tensors, job.metadata), [], 0.0)
        elif job.tensors:
            begin = preparation.network.parameters.join(job.tensors)
            coordinator.begin_with(begin.astype(preparation.config.training.dtype))
        coordinator.train()
        if coordinator.completed:
            coordinator.evaluate("test")
        elif session.interruption.received is not None:
            raise Interrupted(session.interruption.received)


def _prepare(config: Config, session: Session, given: Dataset | None) -> Preparation:
    training = config.training
    if session.num_workers and are_cached(kernel_set(training.kernels).all, training.dtype):
        start_fork_server(training.kernels, training.dtype)  # it starts while the data is read
    # What rank 0 has to say of the data, the others would say again.
    warn = session.messages.warn if session.leads else session.messages.note
    return prepare(config, say=session.messages.say, warn=warn, given=given)


def _useful_workers(session: Session, preparation: Preparation) -> int:
    training, num_workers = preparation.config.training, session.num_workers
    batch_size = min(training.batch_size, preparation.splits["train"].size)
    tiles = num_tiles(batch_size, training.tile)
    if session.ranks is not None:
        return _useful_workers_of_rank(session, session.ranks.group, batch_size, training.tile)
    if num_workers <= tiles:
        return num_workers
    session.messages.warn(
        f"a batch has {tiles} tiles (training.batch_size {training.batch_size}, training.tile {training.tile}); "
        f"{tiles} workers are started, not {num_workers}"
    )
    return tiles


def _useful_workers_of_rank(session: Session, ranks: MpiGroup, batch_size: int, tile: int) -> int:
    first, last = rank_share(0, batch_size, tile, ranks.rank, ranks.size)
    tiles = num_tiles(batch_size, tile)
    if session.leads and tiles < ranks.size:
        session.messages.warn(
            f"a batch has {tiles} tiles (training.batch_size, training.tile), and there are {ranks.size} ranks: "
            f"{ranks.size - tiles} of them have nothing to compute in a step"
        )
    return min(session.num_workers, max(1, num_tiles(last - first, tile)))


@contextlib.contextmanager
def _computing(
    config: Config,
    folder: Path | None,
    session: Session,
    check: Callable[[Preparation], None],
    given: Dataset | None = None,
) -> Iterator[_Computing]:
    """Prepare a training; provide the shared arrays with the data set in them, and the processes that compute.

    Parameters
    ----------
    folder : where checkpoints will be kept, if they are; memory and disk are checked before anything is started.
    check : told what was prepared, before anything is started; raises where that does not fit the run.
    """
    messages = session.messages
    if session.ranks is not None and config.training.privacy and config.training.privacy.source == "secure":
        raise ConfigError(
            "training.privacy draws batches and noise in one process, from a source that no other rank can draw the "
            "same from; train it with --engine process"
        )
    preparation = _prepare(config, session, given)
    check(preparation)
    if session.ranks is not None:
        require_agreement(session.ranks.group, preparation)
    config = preparation.config
    training = config.training
    num_workers = _useful_workers(session, preparation)
    check_memory(preparation.memory_plan(num_workers))
    if folder is not None:
        check_disk(folder, preparation.checkpoint_bytes, config.checkpoints.keep_last + 2)
    kernels = kernel_set(training.kernels)
    needed = kernels.for_training(augments=training.augment is not None, drops=preparation.network.drops)
    load(needed, training.dtype, announce=messages.say, warn=messages.warn)
    specs, files = preparation.array_plan()
    # From here on there is something to put away, or to save: a signal waits until that can be done.
    with session.interruption.deferred(), contextlib.ExitStack() as at_end:
        arrays = SharedArrays(specs, files)
        at_end.callback(arrays.close)
        preparation = _share_data(preparation, arrays)
        computation = Computation(
            preparation.network,
            training.kernels,
            training.dtype,
            training.tile,
            preparation.normalisation,
            arrays,
            preparation.class_weights,
            training.per_example.clip if training.per_example.clips else None,
            config.seed,
            training.augment,
        )
        log = messages.say if session.leads else messages.warn  # a worker that died here is nobody else's news
        group = start_group(
            num_workers,
            computation,
            max_restarts=config.workers.max_restarts,
            log=log,
            num_processors=None if session.ranks is None else session.ranks.group.num_processors,
        )
        at_end.callback(group.close)
        if session.ranks is not None:
            group = RankedGroup(
                group,
                session.ranks.group,
                preparation.network,
                arrays,
                training.tile,
                received=session.ranks.received,
                agreed=session.interruption,
            )
        session.interruption.check()
        yield _Computing(preparation, num_workers, kernels, arrays, group)


def _share_data(preparation: Preparation, arrays: SharedArrays) -> Preparation:
    """Copy the data set into the shared arrays; return the preparation with it there.

    The copy that was read is let go with the old preparation: it would be there twice.
    """
    dataset = preparation.dataset
    shared = share_splits(dataset.files, arrays)
    return replace(preparation, dataset=replace(dataset, train=shared["train"], test=shared["test"]))


@contextlib.contextmanager
def _log_of(run: RunDirectory, messages: Messages) -> Iterator[None]:
    with writing_into(run):
        log = TrainingLog(run.train_log_path)
    messages.attach_log(log.write)
    try:
        yield
    finally:
        messages.detach_log()
        log.close()


def _coordinator(run: RunDirectory | None, computing: _Computing, session: Session) -> Coordinator:
    group = computing.group
    return Coordinator(
        computing.preparation,
        run,
        group,
        computing.arrays,
        computing.kernels,
        messages=session.messages,
        interruption=session.interruption,
        clock=session.clock,
        measure_memory=lambda: proportional_memory([os.getpid(), *group.pids]),
    )


@contextlib.contextmanager
def _recorded_ending(run: RunDirectory, record: dict[str, Any], messages: Messages) -> Iterator[None]:
    """Write into run.json, and into the log, how the block ended."""
    try:
        yield
    except BaseException as error:
        was_stopped = isinstance(error, Interrupted)
        cause = str(error) or type(error).__name__
        messages.note(f"ended by {cause}" if was_stopped else f"error: {cause}")
        ending = {"status": "interrupted" if was_stopped else "failed", "cause": cause}
        try:
            run.write_run_json(record | {"ended": now()} | ending)
        except OSError as failure:  # the cause of the end is what counts
            messages.warn(f"{run.run_json_path}: the end is not recorded: {failure.strerror}")
        raise
    try:
        run.write_run_json(record | {"ended": now(), "status": "completed"})
    except OSError as error:
        raise FailedRun(f"{run.run_json_path}: cannot be written: {error.strerror}; resume the run") from error


def _train(
    coordinator: Coordinator,
    run: RunDirectory,
    record: dict[str, Any],
    computing: _Computing,
    session: Session,
    earlier_seconds: dict[str, float],
) -> None:
    """Train, evaluate the test split once if the run is complete, write summary and status, and draw pictures."""
    messages, interruption, preparation = session.messages, session.interruption, computing.preparation
    messages.say(_greeting(run, computing, session))
    if preparation.config.training.privacy:
        for line in private_greeting(preparation.config.training, preparation.num_steps, preparation.accountant):
            messages.say(line)
        if preparation.config.training.privacy.source == "seeded":
            messages.warn(NOT_PRIVATE)
    with _recorded_ending(run, record, messages):
        test: dict[str, float] | None = None
        no_summary: OSError | None = None
        try:
            coordinator.train()
            if coordinator.completed:
                evaluation = coordinator.evaluate("test")
                test = evaluation.metrics()
                messages.say(f"test accuracy {test['accuracy']:.2%}, loss {test['loss']:.4f}")
                if coordinator.noise_scale is not None:
                    messages.say(coordinator.noise_scale.advice(preparation.config.training.batch_size))
                report = report_of(
                    evaluation,
                    padded_names(preparation.dataset.class_names, preparation.network.num_outputs),
                    split="test",
                    data_digest=preparation.dataset.digest,
                    checkpoint=checkpoint_path(run.checkpoints_path, coordinator.step).name,
                    step=coordinator.step,
                    privacy=coordinator.privacy,
                )
                write_report(run, report, messages.warn)
            if coordinator.stopped_early:
                record["stopped_early"] = coordinator.stopped_early
        finally:
            for name, number in computing.group.num_tiles_computed.items():
                messages.note(f"{name} computed {number:,} tiles")
            seconds = session.clock.read()
            seconds = {name: value + earlier_seconds.get(name, 0.0) for name, value in seconds.items()}
            try:
                run.write_summary(_summary(coordinator, computing.num_workers, seconds, test))
            except OSError as error:
                no_summary = error
                messages.warn(f"{run.summary_path}: cannot be written: {error.strerror}")
        if interruption.received is not None and test is None:
            saved = f"the run is saved at step {coordinator.step} in {run.path}"
            raise Interrupted(interruption.received, saved)
        if no_summary is not None:
            raise FailedRun(f"{run.summary_path}: cannot be written; resume the run") from no_summary
    kill_point("coordinator: at the end")
    # The run is complete without its pictures: whoever stops it now loses them alone, and `evaluate` draws them again.
    if preparation.config.logging.plots and interruption.received is None:
        parameters, splits = computing.arrays["parameters"], preparation.splits
        write_plots(run, preparation.network, parameters, preparation.dataset, splits["test"], report, messages)


def _seconds_until(run: RunDirectory, step: int, rows: Sequence[dict[str, Any]]) -> dict[str, float]:
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


def _summary(
    coordinator: Coordinator, num_workers: int, seconds: dict[str, float], test: dict[str, float] | None
) -> dict[str, Any]:
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


def _greeting(run: RunDirectory, computing: _Computing, session: Session) -> str:
    preparation = computing.preparation
    training, dataset = preparation.config.training, preparation.dataset
    who = (
        "this process"
        if computing.num_workers == 0
        else f"{computing.num_workers} worker" + "s" * (computing.num_workers > 1)
    )
    if session.ranks is not None:
        size = session.ranks.group.size
        who = f"{size} rank{'s' * (size > 1)}, this one with {who}"
    return (
        f"{run.path}: {preparation.network.parameters.size:,} parameters, {dataset.name} from {dataset.source}, "
        f"{preparation.splits['train'].size:,} examples, {preparation.num_steps:,} steps of "
        f"{training.batch_size}, on {who}"
    )
