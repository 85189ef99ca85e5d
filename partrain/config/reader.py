"""Reads a configuration from a YAML file, with the changes that `--set` makes to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pydantic

from partrain.config.example_files import suggest_example
from partrain.config.overrides import apply_override, origin_of
from partrain.config.schema.config import Config
from partrain.config.schema.data import ARRAY_SOURCES
from partrain.config.validation_messages import explain, explain_problem
from partrain.config.yaml_loader import load_yaml
from partrain.errors import ConfigError

# So many errors of a file are listed.
_MAX_LISTED = 20


# YAML takes a hundred times its size in memory, and a second for a megabyte.
MAX_BYTES = 1_000_000


def read_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read and check a configuration file.

    Parameters
    ----------
    path : the YAML file.
    overrides : `KEY=VALUE` texts, as `--set` takes them: a dotted path and a YAML value.

    Raises
    ------
    ConfigError
        The file cannot be read, is not YAML, or has errors; the message lists them, each with its key.
    """
    mapping = read_mapping(path)
    for override in overrides:
        apply_override(mapping, override)
    return parse_config(mapping, source=str(path), overrides=overrides)


def read_run_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read the configuration of a run, as `read_config`.

    A run without `data.layout` may be older than this key, and then took its arrays as (N,C,H,W), whatever they look
    like.
    """
    config = read_config(path, overrides)
    if config.data.name not in ARRAY_SOURCES or config.data.layout is not None:
        return config
    return config.model_copy(update={"data": config.data.model_copy(update={"layout": "channels_first"})})


def read_mapping(path: str | Path) -> dict[Any, Any]:
    """Read a configuration file as plain containers, without checking keys and values.

    Raises
    ------
    ConfigError
        The file cannot be read, is not YAML, or does not hold a mapping.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ConfigError(f"{path} has more than {MAX_BYTES:,} bytes; no configuration is so long")
        text = content.decode()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is not a text file in UTF-8"
        hint = suggest_example(str(path)) if isinstance(error, FileNotFoundError) else ""
        raise ConfigError(f"cannot read the configuration {path}: {cause}{hint}") from error
    mapping = load_yaml(text, str(path))
    if mapping is None:
        raise ConfigError(f"{path} is empty; a configuration needs at least `data` and `network`")
    if not isinstance(mapping, dict):
        kind = "a list" if isinstance(mapping, list) else "a text" if isinstance(mapping, str) else "a single value"
        raise ConfigError(f"{path} holds {kind}; a configuration is a mapping of keys to values")
    return mapping


def parse_config(mapping: dict[Any, Any], *, source: str, overrides: Sequence[str] = ()) -> Config:
    """Check a configuration given as plain containers.

    Parameters
    ----------
    mapping : the configuration.
    source : the name used in error messages, such as its file.
    overrides : the texts of `--set` that were applied to it; the message names the one that an error comes from.

    Raises
    ------
    ConfigError
        Lists the errors, each with its key.
    """
    try:
        return Config.model_validate(mapping)
    except pydantic.ValidationError as error:
        raise ConfigError(_describe(error, mapping, source, overrides)) from error


def _describe(error: pydantic.ValidationError, mapping: dict[Any, Any], source: str, overrides: Sequence[str]) -> str:
    """Return the errors, grouped by where they come from."""
    from partrain.config.known_values import further_problems  # only where there are errors

    details = error.errors(include_url=False)
    locations = [tuple(str(part) for part in each["loc"]) for each in details]
    errors: list[tuple[Sequence[str], Callable[[], str]]] = [
        (location, partial(explain, each)) for location, each in zip(locations, details, strict=True)
    ]
    if len(errors) < _MAX_LISTED:
        errors += [
            (location, partial(explain_problem, location, message))
            for location, message in further_problems(mapping, locations)
        ]
    messages_of_origins: dict[str, list[Callable[[], str]]] = {}
    for location, message_of in errors:
        messages_of_origins.setdefault(origin_of(location, source, overrides), []).append(message_of)
    lines = []
    for origin, messages in messages_of_origins.items():
        count = "1 error" if len(messages) == 1 else f"{len(messages):,} errors"
        lines.append(f"{origin}: {count} in the configuration")
        lines += [f"  {message_of()}" for message_of in messages[:_MAX_LISTED]]
        if len(messages) > _MAX_LISTED:
            lines.append(f"  … and {len(messages) - _MAX_LISTED:,} more")
    return "\n".join(lines)
