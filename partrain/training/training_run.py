"""Trains a run from start to end: plan, processes, directory, training, summary."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from partrain.analysis.evaluation import report_of, write_report
from partrain.analysis.plots.run_plots import write_plots
from partrain.analysis.trained_run import padded_names
from partrain.config.identity import identity_digest
from partrain.config.reader import read_run_config
from partrain.config.schema.config import Config
from partrain.data.dataset import Dataset
from partrain.data.split_name import SplitName
from partrain.errors import FailedRun, RunError, UserError
from partrain.parallel.mpi.rank_death import RankDied
from partrain.parallel.split_evaluation import Evaluation
from partrain.store.checkpoint import Checkpoint
from partrain.store.metrics_log import cut_back, read_metrics
from partrain.store.run_directory import RunDirectory, reporting_write_errors
from partrain.store.run_location import RunLocation
from partrain.store.run_paths import RunPaths
from partrain.store.training_log import TrainingLog
from partrain.store.unfinished_run import is_ready_to_begin, is_unfinished
from partrain.system.durable_files import sync_folder
from partrain.system.fault_injection import kill_point
from partrain.system.messages import Messages
from partrain.system.signals import Interrupted
from partrain.system.terminal_text import loss_text
from partrain.training.coordinator import Coordinator
from partrain.training.initial_parameters import InitialParameters, require_fit
from partrain.training.live_events import live_events, require_events_package
from partrain.training.mpi.initial_state import InitialState
from partrain.training.plan import TrainingPlan, num_steps
from partrain.training.privacy.settings import NOT_PRIVATE, is_seeded
from partrain.training.resources import TrainingResources, training_resources
from partrain.training.resume import (
    Horizon,
    config_to_resume,
    newest_state,
    require_same_bits,
    require_same_data,
    require_steps_ahead,
    require_trained_here,
    why_stopped_early,
)
from partrain.training.run_output import RunOutput
from partrain.training.run_record import first_record, horizon_of, next_record, now, read_record
from partrain.training.run_summary import (
    describe_end,
    describe_newest_checkpoint,
    describe_resume,
    describe_start,
    seconds_until,
    summary,
)
from partrain.training.session import Session


def train_new_run(
    config: Config,
    location: RunLocation,
    session: Session,
    initial: InitialParameters | None = None,
    dataset: Dataset | None = None,
) -> RunDirectory:
    """Train a new run.

    Parameters
    ----------
    config : the configuration; the run stores the resolved one.
    location : where to create the run.
    session : the command that trains.
    initial : the parameters to start from; None: random ones.
    dataset : the data set, if it is in memory; None: it is loaded.

    Returns
    -------
    The directory of the completed run.

    Raises
    ------
    UserError
        The input is wrong; nothing was created.
    FailedRun, Interrupted
        The run failed, or a signal asked to stop; the run is saved.

    Side effects
    ------------
    Creates the run's directory; starts processes.
    """
    require_events_package(config)
    check = functools.partial(require_fit, initial)
    session.broadcast_state(InitialState(config, tensors=initial.arrays if initial else {}))
    with training_resources(config, location.parent, session, check, dataset) as resources:
        plan = resources.plan
        kill_point("coordinator: before the run is made")
        run = location.create(plan.config.name)
        kill_point("coordinator: after the run's directory was made")
        with contextlib.ExitStack() as at_end:
            try:
                session.announce_run(run.path)
                at_end.enter_context(run.lock())
                at_end.enter_context(_log_of(run, session.messages))
                record = first_record(plan, session.command_line, resources.total_workers, resources.ranks)
                coordinator = Coordinator(resources, session, RunOutput.of_run(run, plan, session))
                with reporting_write_errors(run):
                    if initial is not None:  # before config.yaml, from which alone a killed start may begin again
                        vector, record["initialised_from"] = initial.starting_point(plan, session.messages)
                        coordinator.begin_with(vector)
                    run.write_config(plan.config.to_yaml())
                    run.write_run_json(record)  # from now on, the directory is a run
                session.interruption.check()
            except BaseException:
                run.discard()
                raise
            _train(coordinator, run, record, resources, session, earlier_seconds={})
    return run


def resume_run(
    path: Path, overrides: Sequence[str], horizon: Horizon, session: Session, dataset: Dataset | None = None
) -> RunDirectory:
    """Resume a run from its newest good checkpoint; the result is bit for bit that of an uninterrupted run.

    Parameters
    ----------
    path : the run's directory.
    overrides : `KEY=VALUE` texts for runtime fields of the configuration, and for `data.path`.
    horizon : the new horizon.
    session : the command that trains; the number of workers may differ from that of earlier sessions.
    dataset : the data set, if it is in memory; None: it is loaded.

    Returns
    -------
    The directory of the completed run. If the run was already complete, a message says so, and nothing is changed.

    Raises
    ------
    UserError
        The run cannot be resumed: another process writes it, its configuration or data changed, it has another version
        of the bits, or it has no checkpoint.
    FailedRun, Interrupted
        As for a new run.

    Side effects
    ------------
    Removes the metrics after the checkpoint's step; then as for a new run.
    """
    messages = session.messages
    if is_unfinished(path):
        return _begin_unfinished(path, overrides, horizon, session, dataset)
    run = RunDirectory.open(path)
    with run.lock(session.lock_patience_s):
        before = read_record(run)
        require_trained_here(before, path)
        require_same_bits(before, path, to="resume")
        config = config_to_resume(run.config_path, before, overrides, horizon, messages.warn)
        require_events_package(config)
        state = newest_state(run, before, messages.warn)
        if (
            before["status"] == "completed"
            and state is not None
            and (reason := _reason_not_to_resume(run, config, state, before))
        ):
            messages.say(reason)
            session.broadcast_state(None)
            return run
        if state is not None:
            require_steps_ahead(state, config, horizon, run.path)
        initial_state = InitialState(config) if state is None else InitialState(config, state.tensors, state.metadata)
        session.broadcast_state(initial_state)
        with _log_of(run, messages):
            _continue_run(run, before, config, state, session, dataset)
    return run


def _begin_unfinished(
    path: Path, overrides: Sequence[str], horizon: Horizon, session: Session, dataset: Dataset | None
) -> RunDirectory:
    """Begin a run that was killed before it began, from its own configuration."""
    if not is_ready_to_begin(path):
        raise RunError(
            f"{path}: a run was killed here before it began, and before its configuration was complete. Begin it with "
            "the command that created it."
        )
    file = RunPaths(path).config_path
    config = read_run_config(file)
    record = {"identity": config.identity(), "horizon": horizon_of(config)}
    config = config_to_resume(file, record, overrides, horizon, session.messages.warn)
    session.messages.warn(f"{path} was killed before it began; it begins now")
    return train_new_run(config, RunLocation(path.parent, path), session, dataset=dataset)


def _reason_not_to_resume(run: RunDirectory, config: Config, state: Checkpoint, before: dict[str, Any]) -> str | None:
    """Return the reason why a completed run has no further steps to make; None if it has."""
    if reason := why_stopped_early(config, state, before):
        return (
            f"{run.path} is complete: it stopped early at step {state.step}: {reason}; "
            f"to continue from its parameters, start a new run with --init-from {run.path}"
        )
    if state.step == num_steps(config):
        return f"{run.path} is complete: {state.step} steps; to train further, raise --epochs or --max-steps"
    return None


def _continue_run(
    run: RunDirectory,
    before: dict[str, Any],
    config: Config,
    state: Checkpoint | None,
    session: Session,
    dataset: Dataset | None,
) -> None:
    """Continue from a saved state, or from step 0 if `state` is None; `before` is the content of run.json."""

    def check(plan: TrainingPlan) -> None:
        require_same_data(plan, before, run.path)

    messages = session.messages
    with training_resources(config, run.path, session, check, dataset) as resources:
        plan = resources.plan
        step = 0 if state is None else state.step
        record = next_record(before, plan, step, session.command_line, resources.total_workers, resources.ranks)
        with reporting_write_errors(run):
            num_cut = cut_back(run.metrics_path, step)
            kill_point("coordinator: after the metrics were cut back")
            run.write_run_json(record)  # before config.yaml: run.json alone determines the horizon
            run.write_config(plan.config.to_yaml())
            session.announce_run(run.path)  # after run.json, which has the new horizon
            rows = read_metrics(run.metrics_path)
        # The identity that the run began with, also if its data has moved.
        output = RunOutput.of_run(run, plan, session, identity_digest(before["identity"]))
        coordinator = Coordinator(resources, session, output)
        earlier_seconds = seconds_until(run, step, rows)
        if state is not None:
            coordinator.restore(state, rows, sum(earlier_seconds.values()))
        cut = f"; {num_cut} later lines of metrics were set aside" if num_cut else ""
        messages.say(f"resumed from step {step}{cut}")
        _train(coordinator, run, record, resources, session, earlier_seconds)


@contextlib.contextmanager
def _log_of(run: RunDirectory, messages: Messages) -> Iterator[None]:
    with reporting_write_errors(run):
        log = TrainingLog(run.train_log_path)
    messages.attach_log(log.write)
    try:
        yield
    finally:
        messages.detach_log()
        log.close()


@contextlib.contextmanager
def _recorded_ending(run: RunDirectory, record: dict[str, Any], messages: Messages) -> Iterator[dict[str, Any]]:
    """Record in run.json and in the log how the block ended; it may change the status that a normal end has."""
    ending = {"status": "completed"}
    try:
        yield ending
    except RankDied:  # the run goes on
        raise
    except BaseException as error:
        was_stopped = isinstance(error, Interrupted | KeyboardInterrupt)
        cause = str(error) or type(error).__name__
        messages.note(f"ended by {cause}" if was_stopped else f"error: {cause}")
        if not run.is_locked:  # its directory is gone
            raise
        if not isinstance(error, UserError | Interrupted):
            messages.say(describe_newest_checkpoint(run))
        ending = {"status": "interrupted" if was_stopped else "failed", "cause": cause}
        try:
            run.write_run_json(record | {"ended": now()} | ending)
        except OSError as failure:  # only a warning: the error that ended the block is re-raised below
            messages.warn(f"{run.run_json_path}: the end of the run is not recorded: {failure.strerror}")
        raise
    try:
        run.write_run_json(record | {"ended": now()} | ending)
    except OSError as error:
        raise FailedRun(f"{run.run_json_path}: cannot be written: {error.strerror}; resume the run") from error


def _train(
    coordinator: Coordinator,
    run: RunDirectory,
    record: dict[str, Any],
    resources: TrainingResources,
    session: Session,
    earlier_seconds: dict[str, float],
) -> None:
    """Train and write everything that a run holds, also TensorBoard events if the configuration asks for them."""
    with live_events(run, resources.plan.config, session.messages.warn) as write_events:
        coordinator.logger.copy_rows_to(write_events)
        _train_to_the_end(coordinator, run, record, resources, session, earlier_seconds)


def _train_to_the_end(
    coordinator: Coordinator,
    run: RunDirectory,
    record: dict[str, Any],
    resources: TrainingResources,
    session: Session,
    earlier_seconds: dict[str, float],
) -> None:
    """Train; if the run completes, evaluate the test split and draw plots. Write summary and status in any case."""
    interruption, plan = session.interruption, resources.plan
    for line in describe_start(run, resources):
        session.messages.say(line)
    with reporting_write_errors(run):
        can_sync = sync_folder(run.path)
    if not can_sync:
        session.messages.warn(f"{run.path}: the file system cannot sync directories; a power failure may undo a save")
    if is_seeded(plan.config.training):
        session.messages.warn(NOT_PRIVATE)
    with _recorded_ending(run, record, session.messages) as ending:
        test: dict[str, float] | None = None
        try:
            coordinator.train()
            if coordinator.completed and session.with_test:
                evaluation, test = coordinator.test()
                coordinator.follow_run()
                report = _report_test(coordinator, run, evaluation, plan, session.messages)
                if "ema_accuracy" in test:
                    said = f"test accuracy {test['ema_accuracy']:.2%}, loss {loss_text(test['ema_loss'])}"
                    session.messages.say(f"averaged weights: {said}")
            if coordinator.stopped_early:
                record["stopped_early"] = coordinator.stopped_early
        finally:
            failure = _write_summary(coordinator, run, resources, session, earlier_seconds, test)
        saved = f"the run is saved at step {coordinator.step}; to continue: {describe_resume(run, plan.config)}"
        if interruption.received is not None and not coordinator.completed:
            raise Interrupted(interruption.received, saved)
        if failure is not None:
            raise FailedRun(f"{run.summary_path}: cannot be written; resume the run") from failure
        if not coordinator.completed:
            assert session.callbacks.stop_reason is not None
            ending |= {"status": "interrupted", "cause": session.callbacks.stop_reason}
    if not coordinator.completed:
        session.messages.say(f"{session.callbacks.stop_reason}; {saved}")
        return
    seconds = sum(session.clock.read().values()) + sum(earlier_seconds.values())
    session.messages.say(describe_end(run, coordinator, plan, seconds))
    kill_point("coordinator: at the end")
    # The run is complete without its plots. A signal while they are drawn loses only them; `evaluate` draws them again.
    if plan.config.logging.plots and interruption.received is None and test is not None:
        parameters, images = resources.arrays["parameters"], plan.dataset.test.images
        write_plots(run, plan.network, parameters, images, report, session.messages)


def _report_test(
    coordinator: Coordinator, run: RunDirectory, test: Evaluation, plan: TrainingPlan, messages: Messages
) -> dict[str, Any]:
    """Print the test result, write its report into the run, and return the report."""
    messages.say(f"test accuracy {test.accuracy:.2%}, loss {loss_text(test.loss)}")
    if (scale := coordinator.step_metrics.noise_scale) is not None:
        messages.say(scale.advice(plan.config.training.batch_size))
    report = report_of(
        test,
        padded_names(plan.dataset.class_names, plan.network.num_outputs),
        split=SplitName.TEST,
        data_digest=plan.dataset.digest,
        checkpoint=run.checkpoints.path_of(coordinator.step).name,
        step=coordinator.step,
        privacy=plan.privacy_after(coordinator.step),
        examples=plan.dataset.test,
    )
    write_report(run, report, messages.warn)
    return report


def _write_summary(
    coordinator: Coordinator,
    run: RunDirectory,
    resources: TrainingResources,
    session: Session,
    earlier_seconds: dict[str, float],
    test: dict[str, float] | None,
) -> OSError | None:
    """Write summary.json, and log the number of tiles of each worker. Return the error if writing fails."""
    if not run.is_locked:  # its directory is gone
        return None
    for name, number in resources.group.num_tiles_computed.items():
        session.messages.note(f"{name} computed {number:,} tiles")
    seconds = {name: value + earlier_seconds.get(name, 0.0) for name, value in session.clock.read().items()}
    try:
        run.write_summary(summary(coordinator, resources, seconds, test))
    except OSError as error:
        session.messages.warn(f"{run.summary_path}: cannot be written: {error.strerror}")
        return error
    return None
