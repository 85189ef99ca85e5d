"""How a YAML file and what `--set` says become a configuration, and how its errors are told."""

from __future__ import annotations

import copy
import difflib
import re
import reprlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import pydantic
import yaml
from pydantic import BaseModel

from partrain.config.schema import LAYERS, Config
from partrain.errors import ConfigError, did_you_mean


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, but `1e-3` is a number (as in YAML 1.2) and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise yaml.MarkedYAMLError(problem="a mapping belongs here", problem_mark=node.start_mark)
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=key_node.start_mark)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"{key!r} stands twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def _load_yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise ConfigError(f"{where} is not valid YAML: {error.problem}{place}") from error
    except RecursionError as error:
        raise ConfigError(f"{where} is not valid YAML: nested too deeply") from error
    # YAML's own constructors raise the last four: for a date 2026-13-45, a number 0x_, !!bool perhaps.
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from error


def read_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read and check a configuration file.

    Parameters
    ----------
    path : the YAML file.
    overrides : `KEY=VALUE` texts, as given to `--set`: a dotted path and a YAML value.

    Raises
    ------
    ConfigError
        The file cannot be read, is not YAML, or has errors; the message lists all of them, each with its key.
    """
    mapping = read_mapping(path)
    for override in overrides:
        _apply_override(mapping, override)
    return parse_config(mapping, source=str(path))


def read_mapping(path: str | Path) -> dict[Any, Any]:
    """Read a configuration file as plain containers, as they stand there.

    Raises
    ------
    ConfigError
        The file cannot be read, is not YAML, or holds no mapping.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is not a text file in UTF-8"
        raise ConfigError(f"cannot read the configuration {path}: {cause}") from error
    mapping = _load_yaml(text, str(path))
    if mapping is None:
        raise ConfigError(f"{path} is empty; a configuration needs at least `data` and `network`")
    if not isinstance(mapping, dict):
        raise ConfigError(f"{path} holds {_kind_of(mapping)} where a mapping of keys to values belongs")
    return mapping


def parse_config(mapping: dict[Any, Any], *, source: str) -> Config:
    """Check a configuration given as plain containers; `source` names it in messages.

    Raises
    ------
    ConfigError
        With all errors at once, each with its key.
    """
    try:
        return Config.model_validate(mapping)
    except pydantic.ValidationError as error:
        lines = [_explain(details) for details in error.errors()]
        count = "1 error" if len(lines) == 1 else f"{len(lines)} errors"
        message = "\n  ".join([f"{source}: {count} in the configuration", *lines])
        raise ConfigError(message) from error


def _apply_override(mapping: dict[Any, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    key = key.strip()
    if not equals or not key:
        raise ConfigError(f"--set {override}: write KEY=VALUE, for example training.optimizer.lr=0.01")
    value = _load_yaml(text, f"--set {_short(override)}: the value")
    *parents, last = key.split(".")
    section: Any = mapping
    for parent in parents:
        if isinstance(section, dict) and section.get(parent) is None:
            section[parent] = {}
        # A copy, since an alias in the file makes one object of two entries.
        child = copy.copy(_entry(section, parent, override))
        section[int(parent) if isinstance(section, list) else parent] = child
        section = child
    if isinstance(section, list):
        _entry(section, last, override)
        section[int(last)] = value
    elif isinstance(section, dict):
        section[last] = value
    else:
        raise ConfigError(f"--set {override}: {'.'.join(parents)} is a value and has no keys")


def _entry(section: Any, key: str, override: str) -> Any:
    if isinstance(section, dict):
        return section[key]
    if isinstance(section, list):
        if key.isdecimal() and int(key) < len(section):
            return section[int(key)]
        raise ConfigError(f"--set {override}: {key!r} is no place in a list of {len(section)} (from 0)")
    raise ConfigError(f"--set {override}: {key!r} would be inside a single value")


def _explain(details: Any) -> str:
    """Turn one error of pydantic's into `path: what is wrong`."""
    location = [str(part) for part in details["loc"]]
    path = ".".join(location) or "the configuration"
    if details["type"] == "extra_forbidden":
        siblings = _known_keys(location[:-1])
        return f"{path}: unknown key{did_you_mean(location[-1], siblings) or _elsewhere(location[-1])}"
    if details["type"] == "missing":
        return f"{path}: this key is needed"
    message = details["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    if details["type"] == "value_error":
        return message if location and message.startswith(location[0]) else f"{path}: {message}"
    message = _PLAIN_WORDS.get(details["type"], message).format(**details.get("ctx", {}))
    found = details["input"]
    return f"{path}: {message}, not {_short(repr(found) if isinstance(found, str) else found)}"


# Where pydantic speaks of Python's types.
_PLAIN_WORDS = {
    "model_type": "must be a mapping of keys to values",
    "list_type": "must be a list",
    "string_type": "must be a text",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "too_long": "must have at most {max_length} entries",
    "too_short": "must have at least {min_length} entries",
    "missing": "is needed",
}


def _known_keys(location: Sequence[str]) -> list[str]:
    """Return the keys of the section at `location`."""
    if location[:1] == ["network"]:
        return [key for key in LAYERS[location[2]].model_fields if key != "kind"]
    section: type[BaseModel] = Config
    for part in location:
        inner = _section_in(section.model_fields[part].annotation)
        assert inner is not None
        section = inner
    return list(section.model_fields)


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """Return the section that a field holds, also one that may be left out; None for a value."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _paths_of_values(section: type[BaseModel] = Config, prefix: str = "") -> Iterator[str]:
    for key, field in section.model_fields.items():
        inner = _section_in(field.annotation)
        if inner is not None:
            yield from _paths_of_values(inner, f"{prefix}{key}.")
        else:
            yield prefix + key


def _elsewhere(key: str) -> str:
    """Name the key of another section that is called, or nearly called, `key`."""
    by_leaf = {path.rpartition(".")[2]: path for path in reversed(list(_paths_of_values()))}
    matches = difflib.get_close_matches(key, list(by_leaf), n=1)
    return f"; did you mean {by_leaf[matches[0]]}?" if matches else ""


def _kind_of(value: Any) -> str:
    if isinstance(value, list):
        return "a list"
    return "a text" if isinstance(value, str) else "a single value"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else reprlib.repr(value)  # bounded: aliases can make a value huge
    return text if len(text) <= 60 else text[:57] + "…"
