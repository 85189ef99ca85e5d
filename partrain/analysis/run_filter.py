"""The filters of `partrain list`: conditions on configuration keys and on the columns of the table."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from partrain.config.yaml_loader import load_yaml
from partrain.errors import ConfigError, did_you_mean

Value = str | float | bool | None

_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_CONDITION = re.compile(r"\s*([^\s<>=!]+)\s*(<=|>=|!=|=|<|>)(.*)", re.DOTALL)
# As the table prints accuracies and times.
_WITH_UNIT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(%|s|min|h|d)\s*")
_MAX_SUGGESTIONS = 3
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Filter:
    """A condition, such as `training.optimizer.lr>1e-3`.

    Attributes
    ----------
    text : as the user wrote it.
    key : a configuration key or a column.
    relation : = != < <= > or >=.
    value : what the runs' values are compared with.
    """

    text: str
    key: str
    relation: str
    value: Value

    def accepts(self, value: Value) -> bool:
        """Return whether a run's value meets the condition; a run without the key has null."""
        if self.relation in ("=", "!="):
            is_equal = _kind(value) == _kind(self.value) and value == self.value
            return is_equal == (self.relation == "=")
        return _kind(value) == _kind(self.value) and _OPERATORS[self.relation](value, self.value)


def parse_filter(text: str) -> Filter:
    """Return the condition in a text: a key, an operator, and a YAML value, a percentage or a time.

    Raises
    ------
    ConfigError
        The text is not a condition, or its value has no order.
    """
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"--filter {text}: write a key, one of {' '.join(_OPERATORS)}, and a value, for example "
            "'training.optimizer.lr>1e-3'; the quotes keep the shell from reading > itself"
        )
    key, relation, written = match.groups()
    if not written.strip():
        raise ConfigError(f"--filter {text}: write null for no value, '' for an empty text")
    if written.startswith(("=", "<", ">")):
        raise ConfigError(f"--filter {text}: write one operator, one of {' '.join(_OPERATORS)}")
    if with_unit := _WITH_UNIT.fullmatch(written):
        number, unit = with_unit.groups()
        # 98.79 / 100 is not the float 0.9879.
        value: Value = float(f"{number}e-2") if unit == "%" else float(number) * _SECONDS[unit]
    else:
        loaded = load_yaml(written, f"--filter {text}: the value")
        if isinstance(loaded, dict) or (isinstance(loaded, list) and any(isinstance(v, dict | list) for v in loaded)):
            raise ConfigError(f"--filter {text}: the value must be a single value or a list of numbers")
        value = loaded if isinstance(loaded, str | int | float | bool | None) else str(loaded)
    if relation not in ("=", "!=") and _kind(value) not in ("number", "text"):
        raise ConfigError(f"--filter {text}: {written.strip()} has no order; use = or !=")
    return Filter(text, key, relation, value)


def select(filters: Sequence[Filter], runs: Sequence[Mapping[str, Value]], known: Collection[str]) -> list[int]:
    """Return the indices of the runs that meet all conditions.

    Parameters
    ----------
    filters : the conditions.
    runs : the values of each run by key.
    known : keys that are right even if no run has a value for them.

    Raises
    ------
    ConfigError
        A condition is on a key that no run has, or on the order of values of another kind.
    """
    for condition in filters if runs else ():
        values = [run[condition.key] for run in runs if condition.key in run]
        if not values and condition.key not in known:
            keys = dict.fromkeys((*known, *(key for run in runs for key in run)))
            raise ConfigError(
                f"--filter {condition.text}: no run has the key {condition.key}{_hint(condition.key, keys)}"
            )
        kinds = {_kind(value) for value in values} - {"null"}
        if condition.relation not in ("=", "!=") and kinds and _kind(condition.value) not in kinds:
            raise ConfigError(
                f"--filter {condition.text}: {condition.key} is a {' or '.join(sorted(kinds))}, which a "
                f"{_kind(condition.value)} cannot be compared with"
            )
    return [
        index
        for index, run in enumerate(runs)
        if all(condition.accepts(run.get(condition.key)) for condition in filters)
    ]


def _hint(key: str, known: Collection[str]) -> str:
    """Return a suggestion: `lr` and `optimizer.lr` stand for `training.optimizer.lr`."""
    longer = [name for name in known if name.endswith(f".{key}")]
    if longer:
        return f"; did you mean {' or '.join(longer[:_MAX_SUGGESTIONS])}?"
    return did_you_mean(key, known) or "; `partrain config` lists the configuration keys"


def _kind(value: Value) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    return "text" if isinstance(value, str) else "number"
