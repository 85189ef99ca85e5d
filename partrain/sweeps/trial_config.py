"""The configurations of a sweep's trials."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from partrain.config.overrides import apply_override
from partrain.config.reader import parse_config, read_mapping
from partrain.config.schema.config import Config
from partrain.config.yaml_writer import dump_yaml
from partrain.store.sweep_directory import Axis, Trial
from partrain.store.sweep_paths import trial_name
from partrain.system.durable_files import replace_non_finite


class BaseConfig:
    """A configuration file, with the changes that all trials have.

    Parameters
    ----------
    path : the YAML file.
    overrides : `KEY=VALUE` texts, as `--set` takes them.

    Raises
    ------
    ConfigError
        The file cannot be read, or an override cannot be applied.
    """

    def __init__(self, path: Path, overrides: Sequence[str]) -> None:
        self._path, self._overrides = path, list(overrides)
        self._mapping = read_mapping(path)
        for override in overrides:
            apply_override(self._mapping, override)

    def with_settings(
        self, settings: Mapping[str, Any], *, seed: int | None = None, fold: tuple[int, int] | None = None
    ) -> Config:
        """Return the configuration with these settings, which is that of a single training with the same `--set`.

        Parameters
        ----------
        settings : values by key.
        seed : the seed; None: that of the file.
        fold : the number of the fold, and how many there are.

        Raises
        ------
        ConfigError
            It is not valid; the message names the `--set` that an error comes from.
        """
        changes = [f"{key}={_value_text(value)}" for key, value in settings.items()]
        if seed is not None:
            changes.append(f"seed={seed}")
        if fold is not None:
            changes.append(f"data.fold={{number: {fold[0]}, of: {fold[1]}}}")
        mapping = copy.deepcopy(self._mapping)
        for change in changes:
            apply_override(mapping, change)
        return parse_config(mapping, source=str(self._path), overrides=[*self._overrides, *changes])


def _value_text(value: Any) -> str:
    """Return a value as YAML on one line."""
    if isinstance(value, str | float):  # JSON has no infinity, and texts look better without quotation marks
        return dump_yaml(value).removesuffix("\n...\n").strip()
    return json.dumps(value)


def plain_config(config: Config) -> dict[str, Any]:
    """Return a configuration as sweep.json has it."""
    mapping: dict[str, Any] = replace_non_finite(config.to_mapping(), lambda number: None)
    return mapping


def first_settings(axes: Sequence[Axis]) -> dict[str, Any]:
    """Return settings with the first value of each axis."""
    return {axis.key: axis.values[0] if axis.values else axis.low for axis in axes}


def extreme_settings(axes: Sequence[Axis]) -> Iterator[dict[str, Any]]:
    """Yield settings in which each value of each axis, and each end of a range, appears: they must all be valid."""
    first = first_settings(axes)
    yield first
    for axis in axes:
        for value in axis.values[1:] or [axis.high]:
            yield first | {axis.key: value}


def make_trials(
    settings: Sequence[Mapping[str, Any]],
    seeds: Sequence[int],
    folds: int | None = None,
    *,
    first_number: int = 1,
    first_setting: int = 1,
) -> list[Trial]:
    """Return the trials of these settings: all with the first seed, then all with the next, so that each is tried soon.

    Parameters
    ----------
    settings : values by key.
    seeds : each setting is trained with each of them.
    folds : the number of folds of a cross-validation, each of which is a trial; None: there are none.
    first_number, first_setting : where the numbers begin.
    """
    numbered = [
        (seed, fold, setting, values)
        for seed in seeds
        for fold in ([None] if folds is None else range(1, folds + 1))
        for setting, values in enumerate(settings, first_setting)
    ]
    return [
        Trial(number=number, run=trial_name(number), settings=dict(values), seed=seed, fold=fold, setting=setting)
        for number, (seed, fold, setting, values) in enumerate(numbered, first_number)
    ]
