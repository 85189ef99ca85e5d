"""The results of a sweep, read from its files: what each trial has reached, and how the settings compare."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from partrain.analysis.comparison.significance import half_width
from partrain.analysis.logged_run import LoggedRun, finite, nested
from partrain.errors import RunError
from partrain.store.sweep_directory import SweepDirectory, SweepRecord, Trial, TrialStatus
from partrain.system.terminal_text import loss_text, printable


@dataclass(frozen=True)
class TrialResult:
    """What a trial has reached.

    Attributes
    ----------
    trial : the trial.
    status : how far it is.
    progress : the part of its training that is done, from 0 to 1.
    value : the objective at its last evaluation; None before the first.
    test_accuracy : on the test examples; None if it was not evaluated on them.
    seconds : how long it has trained; None if that is not known.
    """

    trial: Trial
    status: TrialStatus
    progress: float
    value: float | None
    test_accuracy: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class SettingResult:
    """What the completed trials of a setting have reached; they differ in the seed or the fold.

    Attributes
    ----------
    setting : its number.
    settings : the values of the axes, by key.
    trials : the completed trials.
    values : the objective of each.
    """

    setting: int
    settings: Mapping[str, Any]
    trials: Sequence[TrialResult]
    values: Sequence[float]

    @property
    def mean(self) -> float:
        """The mean of the values."""
        return fmean(self.values)

    @property
    def standard_deviation(self) -> float | None:
        """The standard deviation of the values; None of a single value."""
        return stdev(self.values) if len(self.values) > 1 else None

    @property
    def half_width(self) -> float | None:
        """Half of the confidence interval of the mean, by Student's t; None of a single value, or without scipy."""
        if self.standard_deviation is None:
            return None
        try:
            return half_width(self.values)
        except ModuleNotFoundError:
            return None


def trial_result(sweep: SweepDirectory, record: SweepRecord, trial: Trial) -> TrialResult:
    """Return what a trial has reached.

    Raises
    ------
    RunError
        Its run is damaged.
    """
    status = sweep.trial_status(trial)
    if status == "waiting":
        return TrialResult(trial, status, 0.0, None)
    run = LoggedRun.open(sweep.trial_path(trial))
    values = [value for _, value in run.series(record.objective) if math.isfinite(value)]
    return TrialResult(
        trial,
        status,
        1.0 if status in ("completed", "pruned") else _progress(run),
        values[-1] if values else None,
        finite(nested(run.summary, "test", "accuracy")),
        finite(run.total("total_seconds", "time_s")),
    )


def _progress(run: LoggedRun) -> float:
    epochs, most_steps = (finite(nested(run.record, "horizon", key)) for key in ("epochs", "max_steps"))
    parts = [
        done / whole for done, whole in ((run.last("epoch"), epochs), (run.last("step"), most_steps)) if done and whole
    ]
    return min(1.0, max(parts, default=0.0))


def trial_results(sweep: SweepDirectory, record: SweepRecord) -> list[TrialResult]:
    """Return what each trial has reached; a damaged run counts as failed."""
    results = []
    for trial in record.trials:
        try:
            results.append(trial_result(sweep, record, trial))
        except RunError:
            results.append(TrialResult(trial, "failed", 0.0, None))
    return results


def setting_results(record: SweepRecord, results: Sequence[TrialResult]) -> list[SettingResult]:
    """Return the results of each setting that has a completed trial, the best first.

    Settings with more completed trials come before those with fewer: a lucky seed alone does not win.
    """
    groups: dict[int, list[TrialResult]] = {}
    for result in results:
        if result.status == "completed" and result.value is not None:
            groups.setdefault(result.trial.setting, []).append(result)
    sign = -1 if record.wants_highest else 1
    found = [
        SettingResult(
            setting, group[0].trial.settings, group, [result.value for result in group if result.value is not None]
        )
        for setting, group in groups.items()
    ]
    return sorted(found, key=lambda result: (-len(result.values), sign * result.mean, result.setting))


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """Return for each dotted key the shortest end of it that no other key has, and that says what it is."""
    short = {}
    for key in keys:
        parts = key.split(".")
        ends = [".".join(parts[-length:]) for length in range(1, len(parts) + 1)]
        others = [f".{other}" for other in keys if other != key]
        clear = [end for end in ends if end != "name" and not any(other.endswith(f".{end}") for other in others)]
        short[key] = clear[0] if clear else key
    return short


def describe_trial(record: SweepRecord, trial: Trial) -> str:
    """Return a trial's name, settings, seed and fold on one line."""
    parts = [text] if (text := describe_settings_of(record, trial.settings)) else []
    parts += [f"seed={trial.seed}"] * (len(record.seeds) > 1)
    parts += [f"fold {trial.fold} of {record.folds}"] * (trial.fold is not None)
    return f"{trial.run} ({', '.join(parts)})" if parts else trial.run


def describe_settings_of(record: SweepRecord, settings: Mapping[str, Any]) -> str:
    """Return settings on one line, with short keys."""
    names = short_keys([axis.key for axis in record.axes])
    return ", ".join(f"{names[key]}={setting_text(value)}" for key, value in settings.items())


def setting_text(value: object) -> str:
    """Return the value of a setting for people: numbers with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else printable(str(value))


def value_text(record: SweepRecord, value: float) -> str:
    """Return a value of the objective: an accuracy in percent, or a loss."""
    return f"{value:.2%}" if record.wants_highest else loss_text(value)


def spread_text(record: SweepRecord, half_width: float) -> str:
    """Return half of an interval of the objective, without a unit for accuracies: it follows a value in percent."""
    return f"{100 * half_width:.2f}" if record.wants_highest else f"{half_width:.4f}"
