"""Reads what a sweep varies: `--set KEY=VALUE,VALUE` or `--set KEY=LOW..HIGH`, and `--seeds 0..4`."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from typing import Any

from partrain.config.validation_messages import shorten
from partrain.config.yaml_loader import load_yaml
from partrain.errors import ConfigError
from partrain.store.sweep_directory import Axis

# More trainings than anyone waits for: a slip of the pen, such as seeds 0..1000000.
MAX_TRIALS = 100_000
# Ranges whose ends differ by this factor are drawn on a logarithmic scale, unless `linear:` says otherwise.
LOG_FACTOR = 10

_RANGE = re.compile(r"\s*(?:(log|linear):)?([^\s:,]+?)\.\.([^\s:,]+)\s*")
_SEEDS = re.compile(r"(\d{1,18})(?:\.\.(\d{1,18}))?")


def parse_settings(texts: Sequence[str]) -> tuple[list[str], list[Axis]]:
    """Divide the texts of `--set` into overrides, which hold for all trainings, and axes.

    Parameters
    ----------
    texts : each `KEY=VALUE`, `KEY=VALUE,VALUE,…` or `KEY=LOW..HIGH`, with YAML values. A list is one value if it is in
        brackets: `[1,2],[3,4]` are two values.

    Raises
    ------
    ConfigError
        A text is not like that, or a key or a value is given twice.
    """
    overrides, axes = [], []
    seen: set[str] = set()
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key:
            raise ConfigError(f"--set {text}: write KEY=VALUE or KEY=VALUE,VALUE, e.g. training.optimizer.lr=1e-3,3e-3")
        if key in seen:
            raise ConfigError(f"--set {shorten(text)}: {key} is given twice; separate its values by commas")
        seen.add(key)
        axis = _parse_range(key, value, text) or _parse_values(key, value, text)
        if len(axis.values) == 1:
            overrides.append(text)
        elif key == "seed":
            raise ConfigError(f"--set {shorten(text)}: give several seeds with --seeds, e.g. --seeds 0..4")
        else:
            axes.append(axis)
    return overrides, axes


def _parse_values(key: str, value: str, text: str) -> Axis:
    values = load_yaml(f"[{value}]", f"--set {shorten(text)}: the value")
    if not isinstance(values, list) or not values:
        raise ConfigError(
            f"--set {shorten(text)}: there is no value, so there is nothing to try; write KEY=VALUE,VALUE"
        )
    for index, one in enumerate(values):
        if any(one == other and type(one) is type(other) for other in values[:index]):
            raise ConfigError(f"--set {shorten(text)}: the value {one} is given twice")
    return Axis(key=key, values=values)


def _parse_range(key: str, value: str, text: str) -> Axis | None:
    match = _RANGE.fullmatch(value)
    if match is None:
        return None
    scale, *ends = match.groups()
    low, high = (load_yaml(end, f"--set {shorten(text)}: the range") for end in ends)
    if not all(
        isinstance(end, int | float) and not isinstance(end, bool) and math.isfinite(end) for end in (low, high)
    ):
        raise ConfigError(f"--set {shorten(text)}: a range is LOW..HIGH with two numbers, e.g. 1e-4..1e-2")
    if low >= high:
        raise ConfigError(f"--set {shorten(text)}: the range is empty: {low} is not below {high}")
    if scale == "log" and low <= 0:
        raise ConfigError(f"--set {shorten(text)}: a logarithmic range must begin above 0")
    if scale is None:
        scale = "log" if low > 0 and high >= LOG_FACTOR * low else "linear"
    if not (isinstance(low, int) and isinstance(high, int)):
        low, high = float(low), float(high)
    return Axis(key=key, low=low, high=high, scale="log" if scale == "log" else "linear")


def parse_seeds(text: str) -> list[int]:
    """Return the seeds that a text such as `0..4` or `0,3,7` lists.

    Raises
    ------
    ConfigError
        It is not like that, or names a seed twice.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = _SEEDS.fullmatch(part.strip())
        if match is None:
            raise ConfigError(f"--seeds {text}: write seeds like 0..4 or 0,3,7; {part.strip()!r} is neither")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ConfigError(f"--seeds {text}: the range {part.strip()} is empty; write the smaller seed first")
        if last - first >= MAX_TRIALS:
            raise ConfigError(f"--seeds {text}: these are more than {MAX_TRIALS:,} seeds")
        seeds += range(first, last + 1)
    if len(set(seeds)) < len(seeds):
        twice = next(seed for seed in seeds if seeds.count(seed) > 1)
        raise ConfigError(f"--seeds {text}: the seed {twice} is given twice")
    return seeds


def grid(axes: Sequence[Axis], num_seeds: int) -> list[dict[str, Any]]:
    """Return every combination of the axes' values; without axes, the one empty combination.

    Raises
    ------
    ConfigError
        An axis is a range, or there are too many combinations.
    """
    for axis in axes:
        if not axis.values:
            raise ConfigError(
                f"--set {axis.key}={axis.low}..{axis.high}: a range needs a sampler, such as --sampler tpe "
                "--trials 40; or list the values, separated by commas"
            )
    if math.prod(len(axis.values) for axis in axes) * num_seeds > MAX_TRIALS:
        raise ConfigError(f"these are more than {MAX_TRIALS:,} trainings; give fewer values or seeds, or use --sampler")
    keys = [axis.key for axis in axes]
    return [dict(zip(keys, values, strict=True)) for values in itertools.product(*(axis.values for axis in axes))]
