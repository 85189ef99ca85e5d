"""The table at the end of a sweep: the settings, the best first."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from partrain.analysis.comparison.significance import LEVEL
from partrain.analysis.run_table import duration
from partrain.analysis.sweep_results import (
    SettingResult,
    TrialResult,
    setting_results,
    setting_text,
    short_keys,
    spread_text,
    value_text,
)
from partrain.store.sweep_directory import SweepRecord
from partrain.system.terminal_text import table

# A terminal shows this many settings; the page shows all.
MAX_LISTED = 50


def describe_results(record: SweepRecord, results: Sequence[TrialResult]) -> str:
    """Return the table of a sweep or a cross-validation; empty if no trial is complete."""
    settings = setting_results(record, results)
    if not settings:
        return ""
    return describe_settings(record, settings) if record.folds is None else _describe_folds(record, settings[0])


def _describe_folds(record: SweepRecord, result: SettingResult) -> str:
    rows = [
        (
            str(trial.trial.fold),
            value_text(record, value),
            "-" if trial.seconds is None else duration(trial.seconds),
            trial.trial.run,
        )
        for trial, value in zip(result.trials, result.values, strict=True)
    ]
    spread = result.standard_deviation
    mean = value_text(record, result.mean) + ("" if spread is None else f" ± {spread_text(record, spread)}")
    lines = table(("fold", record.objective, "time", "run"), rows, [0, 3])
    return "\n".join([*lines, "", f"{record.objective}: {mean} (mean ± standard deviation of {len(rows)} folds)"])


def describe_settings(record: SweepRecord, results: Sequence[SettingResult]) -> str:
    """Return the settings as a table, the best first.

    Parameters
    ----------
    record : the sweep.
    results : as `setting_results` returns them.
    """
    names = short_keys([axis.key for axis in record.axes])
    repeats = "folds" if record.folds is not None else "seeds" if len(record.seeds) > 1 else None
    tested = any(trial.test_accuracy is not None for result in results for trial in result.trials)
    heads = [
        *names.values(),
        record.objective,
        *([repeats] if repeats else []),
        *(["test"] if tested else []),
        "time",
        "runs",
    ]
    rows = []
    for result in results[:MAX_LISTED]:
        cells = [setting_text(result.settings.get(key)) for key in names]
        cells.append(mean_text(record, result))
        if repeats:
            cells.append(str(len(result.values)))
        if tested:
            accuracies = [trial.test_accuracy for trial in result.trials if trial.test_accuracy is not None]
            cells.append(f"{fmean(accuracies):.2%}" if accuracies else "-")
        seconds = [trial.seconds for trial in result.trials if trial.seconds is not None]
        cells.append(duration(fmean(seconds)) if seconds else "-")
        cells.append(_runs(result))
        rows.append(cells)
    lines = table(heads, rows, [*range(len(names)), len(heads) - 1])
    if len(results) > MAX_LISTED:
        lines.append(f"… and {len(results) - MAX_LISTED} more")
    if repeats:
        lines += ["", interval_note(results)]
    return "\n".join(lines)


def mean_text(record: SweepRecord, result: SettingResult) -> str:
    """Return the mean of a setting, with half of its confidence interval if there are several values."""
    spread = result.half_width if result.half_width is not None else result.standard_deviation
    mean = value_text(record, result.mean)
    return mean if spread is None else f"{mean} ± {spread_text(record, spread)}"


def interval_note(results: Sequence[SettingResult]) -> str:
    """Return what stands behind the sign ±."""
    if any(result.half_width is None and result.standard_deviation is not None for result in results):
        return "±: standard deviation; install partrain[report] for confidence intervals of the mean"
    return f"±: half of the {LEVEL:.0%} confidence interval of the mean"


def _runs(result: SettingResult) -> str:
    first, num_more = result.trials[0].trial.run, len(result.trials) - 1
    return f"{first} and {num_more} more" if num_more else first
