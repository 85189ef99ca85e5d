"""A sweep that is followed while its trials train: each trial is what its run directory says."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from partrain.analysis.watch.followed_run import FollowedRun
from partrain.errors import RunError
from partrain.store.sweep_directory import SweepDirectory, SweepRecord, Trial


@dataclass(frozen=True, eq=False)
class FollowedTrial:
    """A trial of a sweep and its run."""

    trial: Trial
    run: FollowedRun

    @property
    def status(self) -> str:
        """The status of the run; "pruned" if the sweep ended it early."""
        return "pruned" if self.trial.pruned and self.run.status == "interrupted" else self.run.status


class FollowedSweep:
    """The state of a sweep as its files say it; `poll` reads what has changed.

    Parameters
    ----------
    path : the sweep's directory. It may change if the directory is moved.

    Attributes
    ----------
    record : the content of sweep.json.
    trials : the trials that have been started or may be.
    problem : why something could not be read by the last `poll`; None if everything could be.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record: SweepRecord = SweepDirectory.open(path).read()
        self.trials: list[FollowedTrial] = []
        self.problem: str | None = None
        self._runs: dict[str, FollowedRun] = {}

    @property
    def name(self) -> str:
        """The name of the directory."""
        return os.path.basename(os.path.abspath(self.path))

    def poll(self) -> None:
        """Read what has changed since the last call; what cannot be read is a `problem`, and the rest stays."""
        self.problem = None
        sweep = SweepDirectory(self.path)
        try:
            self.record = sweep.read()
        except RunError as error:
            self.problem = str(error)
        self.trials = []
        for trial in self.record.trials:
            run = self._runs.setdefault(trial.run, FollowedRun(sweep.trial_path(trial)))
            run.path = sweep.trial_path(trial)
            run.poll()
            self.trials.append(FollowedTrial(trial, run))

    def with_status(self, status: str) -> list[FollowedTrial]:
        """Return the trials that have a status."""
        return [trial for trial in self.trials if trial.status == status]

    @property
    def num_waiting(self) -> int:
        """How many trials have not begun, with those that the sampler has not drawn yet."""
        return len(self.with_status("waiting")) + max(0, self.record.num_trials - len(self.trials))

    @property
    def has_ended(self) -> bool:
        """Whether all trials have ended, and none can be resumed."""
        open_trials = [*self.with_status("running"), *self.with_status("interrupted"), *self.with_status("broken")]
        return not self.num_waiting and not open_trials

    def objective(self, trial: FollowedTrial) -> float | None:
        """Return the objective of a trial so far: the value of its last evaluation."""
        return trial.run.last(self.record.objective)

    @property
    def best(self) -> FollowedTrial | None:
        """The completed trial with the best objective; before one is complete, the best of those that train."""
        for candidates in (self.with_status("completed"), self.trials):
            found = [(value, trial) for trial in candidates if (value := self.objective(trial)) is not None]
            if found:
                sign = -1 if self.record.wants_highest else 1
                return min(found, key=lambda pair: (sign * pair[0], pair[1].trial.number))[1]
        return None

    @property
    def seconds_left(self) -> float | None:
        """How long the trials that are left will take if as many train at a time as now; None if it is not known."""
        running = self.with_status("running")
        lefts = [left for trial in running if (left := trial.run.seconds_left) is not None]
        done = [seconds for trial in self.with_status("completed") if (seconds := trial.run.seconds)]
        whole = done or [
            seconds + left
            for trial in running
            if (seconds := trial.run.seconds) is not None and (left := trial.run.seconds_left) is not None
        ]
        if not running or not whole:
            return None
        mean = math.fsum(whole) / len(whole)
        work = math.fsum(lefts) + mean * (self.num_waiting + len(running) - len(lefts))
        return work / len(running)

    @property
    def newest(self) -> FollowedRun | None:
        """The run with the newest news."""
        begun = [trial.run for trial in self.trials if trial.status != "waiting"]
        return min(begun, key=lambda run: run.seconds_without_news, default=None)
