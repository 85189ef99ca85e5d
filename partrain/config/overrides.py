"""Applies `--set KEY=VALUE` to a configuration that is still plain containers."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from partrain.config.validation_messages import shorten
from partrain.config.yaml_loader import load_yaml
from partrain.errors import ConfigError


def apply_override(mapping: dict[Any, Any], override: str) -> None:
    """Set one value of a configuration.

    Parameters
    ----------
    mapping : the configuration; changed in place. Sections on the way are created or copied.
    override : `KEY=VALUE`, a dotted path and a YAML value. Entries of a list are counted from 0.

    Raises
    ------
    ConfigError
        The override is not KEY=VALUE, its value is not YAML, or its path leads through a single value.
    """
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {override}: write KEY=VALUE, for example training.optimizer.lr=0.01")
    value = load_yaml(text, f"--set {shorten(override)}: the value")
    *parents, last = _keys_of(override)
    section: Any = mapping
    for parent in parents:
        if isinstance(section, dict) and section.get(parent) is None:
            section[parent] = {}
        # A copy, because an alias in the file makes two entries one object.
        child = copy.copy(_entry(section, parent, override))
        section[int(parent) if isinstance(section, list) else parent] = child
        section = child
    if isinstance(section, list):
        _entry(section, last, override)
        section[int(last)] = value
    elif isinstance(section, dict):
        section[last] = value
    else:
        raise ConfigError(f"--set {override}: {'.'.join(parents)} is a single value and has no keys")


def origin_of(location: Sequence[str], source: str, overrides: Sequence[str]) -> str:
    """Return where an error comes from: the file, a `--set`, or a section that both have filled.

    Parameters
    ----------
    location : the keys that lead to the error.
    source : the name of the file.
    overrides : the `--set` texts that were applied to its content.
    """
    for override in reversed(overrides):
        key = _keys_of(override)
        if key == list(location[: len(key)]):
            return f"--set {shorten(override)}"
        if key[: len(location)] == list(location):
            return f"{source} with --set {shorten(override)}"
    return source


def _keys_of(override: str) -> list[str]:
    return override.partition("=")[0].strip().split(".")


def _entry(section: Any, key: str, override: str) -> Any:
    if isinstance(section, dict):
        return section[key]
    if isinstance(section, list):
        if key.isdecimal() and int(key) < len(section):
            return section[int(key)]
        raise ConfigError(
            f"--set {override}: there is no entry {key!r}; the list has {len(section)} entries, counted from 0"
        )
    raise ConfigError(f"--set {override}: the key {key!r} is inside a single value")
