"""Trains the trials of a sweep side by side, and goes on where an earlier command has stopped."""

from __future__ import annotations

import shlex
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from partrain.analysis.logged_run import LoggedRun
from partrain.analysis.sweep_results import TrialResult, describe_trial, trial_result, value_text
from partrain.config.schema.config import Config
from partrain.data.dataset import Dataset
from partrain.errors import FailedRun, RunError
from partrain.store.run_location import RunLocation
from partrain.store.run_paths import RunPaths
from partrain.store.sweep_directory import SweepDirectory, SweepRecord, Trial
from partrain.sweeps.preparation import Preparation
from partrain.sweeps.sampler import SettingsSampler
from partrain.sweeps.sweep_progress import LOOK_SECONDS, SweepProgress
from partrain.sweeps.trainings import EndedTraining, Trainings
from partrain.sweeps.trial_config import make_trials
from partrain.system.messages import Messages
from partrain.system.signals import Interrupted, Interruption
from partrain.training.resume import Horizon
from partrain.training.session import Session
from partrain.training.training_run import resume_run, train_new_run

# Ended or not, the trainings are looked at so often.
WAIT_SECONDS = 0.1


@dataclass(frozen=True)
class SweepSession:
    """One command that works on a sweep.

    Attributes
    ----------
    config_of : returns the configuration of a trial.
    preparation : what the trainings share.
    num_workers : the number of workers of each training.
    command_line : the arguments that the command was called with.
    messages, interruption : messages to the user, and the signals that end the command.
    """

    config_of: Callable[[Trial], Config]
    preparation: Preparation
    num_workers: int
    command_line: Sequence[str]
    messages: Messages
    interruption: Interruption


class Sweep:
    """The trials of a sweep, while this process trains them.

    Parameters
    ----------
    directory : the sweep's directory, locked.
    record : its record.
    session : the command.
    """

    def __init__(self, directory: SweepDirectory, record: SweepRecord, session: SweepSession) -> None:
        self.directory, self.record, self._session = directory, record, session
        self._results: dict[int, TrialResult] = {}
        self._failures: dict[str, str] = {}
        self._trainings = Trainings(
            session.preparation.num_at_once, self._train, session.messages.warn, set(session.preparation.warnings)
        )
        self._sampler: SettingsSampler | None = None
        if record.sampler is not None:
            self._sampler = SettingsSampler(
                directory.study_path, record.axes, record.sampler.name, record.seeds[0], maximize=record.wants_highest
            )

    @property
    def results(self) -> list[TrialResult]:
        """What each trial has reached so far."""
        return [self._results[trial.number] for trial in self.record.trials if trial.number in self._results]

    def run(self) -> None:
        """Train all trials that are not complete.

        Raises
        ------
        FailedRun
            Some of them have failed; the others are complete.
        Interrupted
            A signal asked to stop; the trainings are saved.
        """
        messages, interruption = self._session.messages, self._session.interruption
        self._adopt_drawn()
        for trial in self.record.trials:
            self.look(trial)
        waiting = [
            trial for trial in self.record.trials if self._results[trial.number].status not in ("completed", "pruned")
        ]
        num_done = len(self.record.trials) - len(waiting)
        messages.say(
            f"{self.directory.path}: {self.record.num_trials} trainings, {self._trainings.num_at_once} at a time"
            + (f"; {num_done} done already" if num_done else "")
        )
        progress = SweepProgress(self.record, messages)
        try:
            with interruption.deferred():
                self._work(waiting, progress)
        finally:
            progress.close()
        self._report_end()

    def _report_end(self) -> None:
        """Raise an error if a signal asked to stop, or if trainings have failed."""
        interruption = self._session.interruption
        if interruption.received is not None:
            raise Interrupted(interruption.received, f"{self._how_many()}; to continue: {self._command()}")
        if self._failures:
            raise FailedRun(
                "\n  ".join(
                    [
                        f"{len(self._failures)} of {self.record.num_trials} trainings failed:",
                        *(f"{name}: {cause}" for name, cause in self._failures.items()),
                        f"To continue them: {self._command()}",
                    ]
                )
            )

    def work_on(
        self, trials: Sequence[Trial], work: Callable[[Path, Dataset | None, Messages, Interruption], object]
    ) -> None:
        """Do something with completed runs, several at a time, each in a process of its own.

        Parameters
        ----------
        trials : the trials.
        work : called with the run's directory, its data set if it is shared, messages, and signals.

        Raises
        ------
        FailedRun
            It failed for one of them.
        Interrupted
            A signal asked to stop.
        """
        session, waiting = self._session, list(trials)

        def work_in_process(trial: Trial, messages: Messages, interruption: Interruption) -> None:
            dataset = session.preparation.dataset_for(session.config_of(trial))
            work(self.directory.trial_path(trial), dataset, messages, interruption)

        processes = Trainings(
            session.preparation.num_at_once, work_in_process, session.messages.warn, set(session.preparation.warnings)
        )
        with session.interruption.deferred():
            while waiting or processes.running:
                while waiting and processes.has_room and session.interruption.received is None:
                    processes.start(waiting.pop(0))
                if session.interruption.received is not None:
                    processes.stop(session.interruption.received)
                    waiting.clear()
                for ended in processes.wait(WAIT_SECONDS):
                    if ended.exit_code and session.interruption.received is None:
                        self._failures[ended.trial.run] = _cause(ended)
        self._report_end()

    def _work(self, waiting: list[Trial], progress: SweepProgress) -> None:
        """Start trainings while there is room, until all have ended or a signal asks to stop."""
        interruption, trainings = self._session.interruption, self._trainings
        looked_at, has_passed_on = time.monotonic(), False
        progress.show(self.results, 0)
        while True:
            while interruption.received is None and trainings.has_room:
                waiting = waiting or self._draw()
                if not waiting:
                    break
                trainings.start(waiting.pop(0))
            if not trainings.running:
                return
            if interruption.received is not None and not has_passed_on:
                has_passed_on = True
                trainings.stop(interruption.received)
            for ended in trainings.wait(WAIT_SECONDS):
                self._finish(ended, progress, is_stopped=interruption.received is not None)
            if time.monotonic() >= looked_at + LOOK_SECONDS:
                looked_at = time.monotonic()
                for trial in trainings.running:
                    self.look(trial)
                self._prune()
                progress.show(self.results, len(trainings.running))

    def _train(self, trial: Trial, messages: Messages, interruption: Interruption) -> None:
        """Train or resume a trial, in a process of its own."""
        session, path = self._session, self.directory.trial_path(trial)
        own = Session(session.num_workers, session.command_line, messages, interruption, with_test=False)
        config = session.config_of(trial)
        dataset = session.preparation.dataset_for(config)
        if RunPaths(path).run_json_path.exists():
            resume_run(path, [], Horizon(), own, dataset)
        else:
            train_new_run(config, RunLocation(path.parent, path), own, dataset=dataset)

    def _finish(self, ended: EndedTraining, progress: SweepProgress, *, is_stopped: bool) -> None:
        """Take note of a training that has ended."""
        trial = self._current(ended.trial)
        result = self.look(trial)
        if self._sampler is not None:
            self._tell(self._sampler, trial)
        if result.status == "completed" and result.value is not None:
            value = (
                f"{describe_trial(self.record, trial)}: {self.record.objective} {value_text(self.record, result.value)}"
            )
            progress.say(self.results, None, f"{value}; ")
        elif result.status == "pruned":
            progress.say(self.results, None, f"{describe_trial(self.record, trial)}: pruned; ")
        elif not is_stopped or ended.exit_code not in (0, *(128 + number for number in signal.Signals)):
            self._failures[trial.run] = _cause(ended)
            self._session.messages.warn(f"{describe_trial(self.record, trial)} failed: {_cause(ended)}")

    def look(self, trial: Trial) -> TrialResult:
        """Read what a trial has reached."""
        try:
            result = trial_result(self.directory, self.record, trial)
        except RunError as error:
            result = TrialResult(trial, "failed", 0.0, None)
            self._session.messages.warn(str(error))
        self._results[trial.number] = result
        return result

    def _current(self, trial: Trial) -> Trial:
        """Return a trial as the record has it now."""
        return next(each for each in self.record.trials if each.number == trial.number)

    def _change(self, trials: Sequence[Trial]) -> None:
        """Replace the trials of the record, durably."""
        self.record = self.record.model_copy(update={"trials": list(trials)})
        self.directory.write(self.record)

    def _adopt_drawn(self) -> None:
        """Take over what the sampler had drawn when an earlier command was killed, and tell it what has ended."""
        if self._sampler is None:
            return
        known = {trial.setting for trial in self.record.trials}
        for setting, values in self._sampler.drawn().items():
            if setting not in known:
                self._add(setting, values)
        for trial in self.record.trials:
            self.look(trial)
            self._tell(self._sampler, trial)

    def _draw(self) -> list[Trial]:
        """Draw one more setting, and return its trials; none if enough are drawn."""
        if self._sampler is None or len(self.record.trials) >= self.record.num_trials:
            return []
        return self._add(*self._sampler.draw())

    def _add(self, setting: int, values: dict[str, object]) -> list[Trial]:
        before = self.record.trials
        trials = make_trials([values], self.record.seeds, first_number=len(before) + 1, first_setting=setting)
        self._change([*before, *trials])
        for trial in trials:
            self.look(trial)
        return trials

    def _tell(self, sampler: SettingsSampler, trial: Trial) -> None:
        """Tell the sampler about the setting of a trial, if all of its trials have ended."""
        results = [self._results.get(each.number) for each in self.record.trials if each.setting == trial.setting]
        values = [result.value for result in results if result is not None and result.status == "completed"]
        if any(result is not None and result.status == "pruned" for result in results):
            sampler.tell_pruned(trial.setting)
        elif len(values) == len(results) and None not in values:
            sampler.tell(trial.setting, sum(value for value in values if value is not None) / len(values))

    def _prune(self) -> None:
        """End the trainings whose validation curves are worse than the median."""
        if self._sampler is None or self.record.sampler is None or not self.record.sampler.prune:
            return
        for trial in self._trainings.running:
            if self._results[trial.number].status != "running" or self._current(trial).pruned:
                continue
            curve = [
                value for _, value in LoggedRun.open(self.directory.trial_path(trial)).series(self.record.objective)
            ]
            if self._sampler.is_worse(trial.setting, curve):
                changed = trial.model_copy(update={"pruned": True})
                self._change([changed if each.number == trial.number else each for each in self.record.trials])
                self._trainings.stop(signal.SIGTERM, trial)

    def _how_many(self) -> str:
        num_complete = sum(result.status in ("completed", "pruned") for result in self.results)
        return f"{num_complete} of {self.record.num_trials} trainings are complete, and the others are saved"

    def _command(self) -> str:
        return shlex.join(self._session.command_line)


def _cause(ended: EndedTraining) -> str:
    """Return why a training has failed."""
    if ended.exit_code < 0:
        name = signal.Signals(-ended.exit_code).name
        memory = ", perhaps because memory ran out" if ended.exit_code == -signal.SIGKILL else ""
        return f"its process was killed by {name}{memory}"
    return ended.errors[-1] if ended.errors else f"ended with exit code {ended.exit_code}; see its train.log"
