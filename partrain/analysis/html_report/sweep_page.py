"""The page of a sweep: the settings against the objective, and tables of settings and trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from partrain.analysis.comparison.significance import LEVEL
from partrain.analysis.html_report.document import asset, document, plotly_source, section, write_document
from partrain.analysis.html_report.tables import Cell, table_by_column
from partrain.analysis.run_table import duration
from partrain.analysis.sweep_results import (
    SettingResult,
    TrialResult,
    describe_trial,
    setting_results,
    setting_text,
    short_keys,
    value_text,
)
from partrain.analysis.sweep_table import interval_note, mean_text
from partrain.store.sweep_directory import Axis, SweepRecord


def write_sweep_page(path: Path, name: str, record: SweepRecord, results: Sequence[TrialResult]) -> None:
    """Write the page of a sweep.

    Parameters
    ----------
    path : the file; replaced if it exists.
    name : the name of the sweep's directory.
    record : the sweep.
    results : what its trials have reached.

    Raises
    ------
    MissingPackage
        plotly is not installed.
    ConfigError, ResourceError
        The file cannot be written.
    """
    write_document(path, sweep_page(name, record, results, plotly_source()))


def sweep_page(name: str, record: SweepRecord, results: Sequence[TrialResult], plotly: str) -> str:
    """Return the page; the parameters are those of `write_sweep_page`, and the source of plotly.js."""
    settings = setting_results(record, results)
    kind = "Sweep" if record.folds is None else "Cross-validation"
    note = f"<p>{interval_note(settings)}.</p>" if any(len(setting.values) > 1 for setting in settings) else ""
    body = "\n".join(
        [
            section("Result", f"<p>{_result(record, results)}</p>"),
            asset("sweep.html") if settings else "",
            section("Settings", _settings_table(record, settings) + note) if record.axes and settings else "",
            section("Trainings", _trials_table(record, results)),
        ]
    )
    scripts = ("unpacking.js", "sorting.js", "sweep.js")
    return document(f"{kind} {name}", body, _data(record, settings), scripts, plotly)


def _result(record: SweepRecord, results: Sequence[TrialResult]) -> str:
    num_complete = sum(result.status == "completed" for result in results)
    return f"{num_complete} of {record.num_trials} trainings are complete. They are compared by {record.objective}."


def _data(record: SweepRecord, settings: Sequence[SettingResult]) -> dict[str, Any]:
    """Return what the chart shows."""
    names = short_keys([axis.key for axis in record.axes])
    return {
        "objective": record.objective,
        "highest": record.wants_highest,
        "level": LEVEL,
        "repeats": "fold" if record.folds is not None else "seed",
        "axes": [{"name": names[axis.key], **_scale(axis)} for axis in record.axes],
        "settings": [
            {
                "values": [_value(result.settings.get(axis.key)) for axis in record.axes],
                "mean": result.mean,
                "half_width": result.half_width,
                "text": mean_text(record, result),
                "trials": [
                    {
                        "name": trial.trial.run,
                        "repeat": trial.trial.seed if trial.trial.fold is None else trial.trial.fold,
                        "value": trial.value,
                    }
                    for trial in result.trials
                ],
            }
            for result in settings
        ],
    }


def _scale(axis: Axis) -> dict[str, Any]:
    """Return how an axis is drawn: its values if it has some, and whether it is logarithmic."""
    numbers = [value for value in axis.values if isinstance(value, int | float) and not isinstance(value, bool)]
    if axis.values and len(numbers) < len(axis.values):
        return {"choices": [setting_text(value) for value in axis.values], "log": False, "listed": True}
    if axis.values:
        low, high = min(numbers), max(numbers)
        return {"choices": None, "log": low > 0 and high >= 10 * low, "listed": True}
    return {"choices": None, "log": axis.scale == "log", "listed": False}


def _value(value: object) -> float | str | None:
    """Return the value of a setting as a number, or else as text."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    return setting_text(value)


def _settings_table(record: SweepRecord, settings: Sequence[SettingResult]) -> str:
    names: Mapping[str, str] = short_keys([axis.key for axis in record.axes])
    heads = [*names.values(), record.objective, "trainings", "test accuracy", "time"]
    rows = []
    for place, result in enumerate(settings):
        tests = [trial.test_accuracy for trial in result.trials if trial.test_accuracy is not None]
        seconds = [trial.seconds for trial in result.trials if trial.seconds is not None]
        rows.append(
            [
                *(Cell(result.settings.get(key), setting_text(result.settings.get(key))) for key in names),
                Cell(result.mean, mean_text(record, result), place == 0 and len(settings) > 1),
                Cell(len(result.values), str(len(result.values))),
                Cell(fmean(tests), f"{fmean(tests):.2%}") if tests else Cell(None, "-"),
                Cell(fmean(seconds), duration(fmean(seconds))) if seconds else Cell(None, "-"),
            ]
        )
    return table_by_column(heads, rows, "settings")


def _trials_table(record: SweepRecord, results: Sequence[TrialResult]) -> str:
    rows = []
    for result in results:
        rows.append(
            [
                Cell(result.trial.number, describe_trial(record, result.trial)),
                Cell(result.status, result.status),
                Cell(result.value, "-" if result.value is None else value_text(record, result.value)),
                Cell(result.test_accuracy, "-" if result.test_accuracy is None else f"{result.test_accuracy:.2%}"),
                Cell(result.seconds, "-" if result.seconds is None else duration(result.seconds)),
            ]
        )
    return table_by_column(("run", "status", record.objective, "test accuracy", "time"), rows, "trainings")
