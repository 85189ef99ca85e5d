"""Verifies a run: computes steps again from one of its states, and compares all that the run stored on the way."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from partrain.config.identity import identity_digest
from partrain.config.schema.config import Config
from partrain.data.dataset import Dataset
from partrain.errors import ConfigError, RunError, VerificationFailed
from partrain.store.checkpoint import Checkpoint, CorruptCheckpoint, load
from partrain.store.metrics_log import read_metrics
from partrain.store.run_directory import RunDirectory
from partrain.system.signals import Interrupted
from partrain.training.coordinator import Coordinator
from partrain.training.logging_schedule import LoggedSession, LoggingSchedule
from partrain.training.metrics_logger import MetricsLogger
from partrain.training.mpi.initial_state import InitialState, Replay
from partrain.training.plan import TrainingPlan, num_steps
from partrain.training.resources import TrainingResources, training_resources
from partrain.training.resume import (
    Horizon,
    config_to_resume,
    require_same_bits,
    require_same_data,
    require_trained_here,
)
from partrain.training.run_output import RunOutput
from partrain.training.run_record import read_record
from partrain.training.run_summary import summary
from partrain.training.session import Session
from partrain.training.verification.comparison import MetricsComparison, StateComparison, result_differences


@dataclass(frozen=True)
class StepRange:
    """The steps to verify.

    Attributes
    ----------
    first : start from the newest checkpoint that is not after this step; None: the last checkpoint but one, or step 0.
    last : the last step; None: that of the newest checkpoint.
    """

    first: int | None = None
    last: int | None = None


@dataclass(frozen=True)
class Verification:
    """What was verified.

    Attributes
    ----------
    run : the run's directory.
    first_step, last_step : the steps that were computed again: those after `first_step`, up to `last_step`.
    num_checkpoints, num_rows : how many checkpoints and lines of metrics were compared.
    with_test : whether the test result was compared, too.
    """

    run: Path
    first_step: int
    last_step: int
    num_checkpoints: int
    num_rows: int
    with_test: bool

    def describe(self) -> str:
        """Return the result as one line of text."""
        checkpoints = f"{self.num_checkpoints} checkpoint{'s' * (self.num_checkpoints != 1)}"
        rows = f"{self.num_rows:,} line{'s' * (self.num_rows != 1)} of metrics"
        test = ", the test result" * self.with_test
        return f"verified: steps {self.first_step:,} to {self.last_step:,}, {checkpoints}, {rows}{test}: same bits"


def verify_run(
    path: Path, steps: StepRange, session: Session, *, data_path: str | None = None, dataset: Dataset | None = None
) -> Verification:
    """Compute steps of a run again, and compare its checkpoints, metrics and test result with them bit by bit.

    Parameters
    ----------
    path : the run's directory. Nothing is written there.
    steps : the steps to verify.
    session : the command; the number of workers may differ from the run's.
    data_path : where the run's data is, if it has moved; its digest is checked.
    dataset : the data set, if it is in memory; None: it is loaded.

    Raises
    ------
    VerificationFailed
        A stored value differs from the recomputed one; the message names the first.
    UserError
        The run cannot be computed again: it has another version of the bits, drew secret noise, was imported, or its
        data is missing.
    Interrupted
        A signal asked to stop.
    """
    run, messages = RunDirectory.open(path), session.messages
    record = read_record(run)
    require_trained_here(record, path)
    require_same_bits(record, path, to="verify")
    moved = [] if data_path is None else [f"data.path={json.dumps(os.path.abspath(data_path))}"]
    config = config_to_resume(run.config_path, record, moved, Horizon(), messages.warn)
    _require_no_secret(config, path)
    states = _load_states(run)
    first, last = _range(path, steps, sorted(states))
    state = _start(record, path, states, first)
    replay = Replay(last, tuple(_sessions(record, config)))
    tensors, metadata = ({}, None) if state is None else (state.tensors, state.metadata)
    session.broadcast_state(InitialState(config, tensors, metadata, replay))
    with training_resources(
        config, None, session, lambda plan: require_same_data(plan, record, run.path), dataset
    ) as resources:
        rows = read_metrics(run.metrics_path)
        metrics = MetricsComparison(str(run.metrics_path), [row for row in rows if first < row["step"] <= last])
        checkpoints = StateComparison(run.checkpoints, [step for step in states if first < step <= last])
        output = _compared_output(run, record, resources.plan, session, replay, metrics, checkpoints)
        coordinator = Coordinator(resources, session, output)
        if state is not None:
            coordinator.restore(state, [row for row in rows if row["step"] <= first], 0.0)
        elif 0 in states:  # the parameters were drawn again
            coordinator.save_start()
        messages.say(f"{path}: computing steps {first + 1:,} to {last:,} again")
        try:
            coordinator.train(last)
            if session.interruption.received is not None:
                raise Interrupted(session.interruption.received, f"nothing differs up to step {coordinator.step:,}")
            metrics.require_no_more()
            with_test = _verify_end(coordinator, resources, run, record)
        except VerificationFailed as error:
            right = max(first, metrics.right_step, checkpoints.right_step)
            reached = max(coordinator.step, metrics.reached_step, checkpoints.reached_step)
            raise VerificationFailed(str(error), (right, reached)) from error
    return Verification(run.path, first, last, checkpoints.num_equal, metrics.num_equal, with_test)


def _compared_output(
    run: RunDirectory,
    record: dict[str, Any],
    plan: TrainingPlan,
    session: Session,
    replay: Replay,
    metrics: MetricsComparison,
    checkpoints: StateComparison,
) -> RunOutput:
    """Return an output that writes nothing: metrics and states are compared with those of the run."""
    warn = session.messages.warn
    logger = MetricsLogger(run.metrics_path, plan, session.clock, warn, open_log=lambda path: metrics)
    schedule = LoggingSchedule(plan.steps_per_epoch, replay.sessions)
    return RunOutput(None, schedule, logger, checkpoints, identity_digest(record["identity"]))


def follow_verification(state: InitialState, resources: TrainingResources, session: Session) -> None:
    """Compute the same steps as rank 0; for the other ranks of an MPI job."""
    replay, plan = state.replay, resources.plan
    assert replay is not None
    output = RunOutput.of_run(None, plan, session, schedule=LoggingSchedule(plan.steps_per_epoch, replay.sessions))
    coordinator = Coordinator(resources, session, output)
    if state.metadata is not None:
        coordinator.restore(Checkpoint(state.tensors, state.metadata), [], 0.0)
    coordinator.train(replay.last_step)
    if session.interruption.received is not None:
        raise Interrupted(session.interruption.received)
    if coordinator.completed:
        coordinator.test()


def _require_no_secret(config: Config, path: Path) -> None:
    """Check that all random numbers of a run come from its seed; raise RunError if not."""
    privacy = config.training.privacy
    if privacy is not None and privacy.source == "secure":
        raise RunError(
            f"{path}: drew its batches and noise from a secret random source, which nobody can draw again; only runs "
            "with training.privacy.source: seeded, or without privacy, can be verified"
        )


def _start(record: dict[str, Any], path: Path, states: Mapping[int, Checkpoint], first: int) -> Checkpoint | None:
    """Return the state from which to compute; None if it is that of step 0, which is drawn from the seed."""
    if first == 0 and "initialised_from" not in record:
        return None
    if first not in states:
        raise _lost_start(record, path, min(states))
    return states[first]


def _lost_start(record: dict[str, Any], path: Path, saved_step: int) -> RunError:
    """Return the error for a run that began with parameters that the seed does not determine, and lost them."""
    origin = record["initialised_from"]
    return RunError(
        f"{path}: began with the parameters of {origin.get('run', origin.get('file'))}, and its checkpoint of step 0 "
        f"was deleted; start from a later step with --from, for example --from {saved_step}"
    )


def _load_states(run: RunDirectory) -> dict[int, Checkpoint]:
    """Return all checkpoints by step, after verifying their digests.

    Raises
    ------
    VerificationFailed
        One is damaged, or belongs to another configuration.
    RunError
        There is none.
    """
    states = {}
    for path in run.checkpoints.files():
        try:
            state = load(path)
        except CorruptCheckpoint as error:
            raise VerificationFailed(str(error)) from error
        if path != run.checkpoints.path_of(state.step):
            raise VerificationFailed(f"{path}: is the state of step {state.step}")
        states[state.step] = state
    if not states:
        raise RunError(f"{run.path}: has no checkpoint yet; there is nothing to verify")
    return states


def _range(path: Path, steps: StepRange, saved: Sequence[int]) -> tuple[int, int]:
    """Return the step to start from, which is 0 or that of a checkpoint, and the last step."""
    last = saved[-1] if steps.last is None else steps.last
    if last > saved[-1]:
        raise ConfigError(f"--to {last:,}: the newest checkpoint of {path} is of step {saved[-1]:,}")
    before = [step for step in saved if step < last and (steps.first is None or step <= steps.first)]
    first = before[-1] if before else 0
    if steps.first is not None and steps.first >= last:
        raise ConfigError(f"--from {steps.first:,}: is not before the last step to verify, {last:,}")
    return first, last


def _sessions(record: dict[str, Any], config: Config) -> list[LoggedSession]:
    """Return the sessions of a run; an older partrain recorded no settings, and the current ones stand for them."""
    current = LoggedSession.of(0, num_steps(config), config)
    sessions = [(0, record), *((entry["from_step"], entry) for entry in record["lineage"])]
    return [LoggedSession.read(from_step, entry, current) for from_step, entry in sessions]


def _verify_end(
    coordinator: Coordinator, resources: TrainingResources, run: RunDirectory, record: dict[str, Any]
) -> bool:
    """Compare summary.json, if the run is complete at this step. Return whether the test result was there.

    Raises
    ------
    VerificationFailed
        A result differs, or there are metrics of steps after the last one.
    """
    if not coordinator.completed:
        return False
    _, test = coordinator.test()
    if record["status"] != "completed":
        return False
    stored = run.read_summary()
    has_test = stored.get("test") is not None  # a sweep evaluates only its best runs on the test examples
    computed = summary(coordinator, resources, defaultdict(float), test if has_test else None)  # without times
    if difference := next(result_differences(stored, computed), None):
        raise VerificationFailed(f"{run.summary_path}: {difference}")
    later = [row["step"] for row in read_metrics(run.metrics_path) if row["step"] > coordinator.step]
    if later:
        raise VerificationFailed(
            f"{run.metrics_path}: has metrics of step {later[0]}, but the training ended at step {coordinator.step}"
        )
    return has_test
