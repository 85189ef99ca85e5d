"""Begins a sweep, or continues the one that the same command has begun."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from partrain.analysis.sweep_results import setting_text
from partrain.errors import RunError
from partrain.store.run_name import validate_run_name
from partrain.store.sweep_directory import Axis, SweepDirectory, SweepRecord
from partrain.store.sweep_paths import SWEEP_SUFFIX, is_sweep
from partrain.training.resume import value_differences


def find_sweep(runs_dir: Path, planned: SweepRecord, started: datetime) -> Path:
    """Return the directory of the newest unfinished sweep in `runs_dir` with the same plan; else that of a new one."""
    with_same_plan = []
    for name in sorted(os.listdir(runs_dir)) if runs_dir.is_dir() else []:
        path = runs_dir / name
        if not is_sweep(path):
            continue
        try:
            sweep = SweepDirectory.open(path)
            record = sweep.read()
            if not differences(record, planned) and not is_finished(sweep, record):
                with_same_plan.append(path)
        except RunError:  # a damaged one
            continue
    if with_same_plan:
        return with_same_plan[-1]
    name = str(planned.config["name"])
    validate_run_name(name)
    stem = f"{started:%Y%m%d-%H%M%S}-{name}-{SWEEP_SUFFIX}"
    number, path = 1, runs_dir / stem
    while os.path.lexists(path):
        number += 1
        path = runs_dir / f"{stem}-{number}"
    return path


def is_finished(sweep: SweepDirectory, record: SweepRecord) -> bool:
    """Return whether all trials of a sweep have been trained."""
    if len(record.trials) < record.num_trials:
        return False
    return all(sweep.trial_status(trial) in ("completed", "pruned") for trial in record.trials)


def begin(sweep: SweepDirectory, planned: SweepRecord) -> SweepRecord:
    """Write the record of a new sweep, or read that of a sweep which continues; the sweep is locked.

    Parameters
    ----------
    sweep : the directory.
    planned : the record of a new sweep, with the command line of this command.

    Raises
    ------
    RunError
        The sweep there has other settings; the message shows the differences.
    """
    if not is_sweep(sweep.path):
        sweep.write(planned)
        return planned
    stored = sweep.read()
    changed = differences(stored, planned)
    if changed:
        raise RunError(
            "\n  ".join(
                [
                    f"{sweep.path}: is a sweep with other settings. Choose another directory, or repeat its command:",
                    *changed,
                ]
            )
        )
    record = stored.model_copy(update={"command_lines": [*stored.command_lines, *planned.command_lines]})
    sweep.write(record)
    return record


def differences(stored: SweepRecord, planned: SweepRecord) -> list[str]:
    """Return a line for each difference between what two sweeps try."""
    return list(value_differences(_plan_of(stored), _plan_of(planned)))


def _plan_of(record: SweepRecord) -> dict[str, Any]:
    return {
        "kind": record.kind,
        "--set": {axis.key: describe_axis(axis) for axis in record.axes},
        "--seeds": ", ".join(map(str, record.seeds)),
        "--folds": record.folds,
        "--sampler": None if record.sampler is None else record.sampler.name,
        "--trials": None if record.sampler is None else record.sampler.num_settings,
        "--prune": record.sampler is not None and record.sampler.prune,
        "--objective": record.objective,
        "configuration": {key: value for key, value in record.config.items() if key != "seed"},
    }


def describe_axis(axis: Axis) -> str:
    """Return the values of an axis, or its range."""
    if axis.values:
        return ", ".join(map(setting_text, axis.values))
    return f"{setting_text(axis.low)} to {setting_text(axis.high)}, {axis.scale}"


def describe_axes(axes: Sequence[Axis]) -> str:
    """Return what a sweep varies on one line."""
    return "; ".join(f"{axis.key}: {describe_axis(axis)}" for axis in axes)
