"""Turns pydantic's validation errors into messages: the key, what is wrong with it, and the nearest known key."""

from __future__ import annotations

import datetime
import difflib
import reprlib
from collections.abc import Iterator, Sequence
from typing import Any

from partrain.config.schema.config import Config
from partrain.config.schema.layer_entries import LAYERS
from partrain.config.schema.options_by_name import OptionsByName
from partrain.config.schema.values import Section, section_in
from partrain.config.yaml_writer import number_text
from partrain.errors import did_you_mean

# The messages of pydantic that speak of Python's types, in the terms of YAML; and those with numbers, of which pydantic
# writes all zeros.
_MESSAGES = {
    "model_type": "must be a mapping of keys to values",
    "list_type": "must be a list",
    "string_type": "must be a text",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be greater than or equal to {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be less than or equal to {le}",
    "too_long": "must have at most {max_length} entries",
    "too_short": "must have at least {min_length} entries",
    "missing": "is needed",
}


def explain(details: Any) -> str:
    """Return one error as `path.of.key: what is wrong`.

    Parameters
    ----------
    details : an entry of `pydantic.ValidationError.errors()`.
    """
    location = [str(part) for part in details["loc"]]
    path = ".".join(location) or "the configuration"
    if details["type"] == "extra_forbidden":
        siblings = _known_keys(location[:-1])
        return f"{path}: unknown key{did_you_mean(location[-1], siblings) or _did_you_mean_elsewhere(location[-1])}"
    if details["type"] == "missing":
        return f"{path}: this key is needed"
    message = details["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    if details["type"] == "value_error":
        return explain_problem(location, message)
    if details["type"] in _MESSAGES:
        context = details.get("ctx", {}).items()
        numbers = {name: number_text(value) if isinstance(value, float) else value for name, value in context}
        message = _MESSAGES[details["type"]].format(**numbers)
    value = details["input"]
    shown = shorten(repr(value) if isinstance(value, str) else _in_yaml(value))
    # YAML makes a number of 2026, a boolean of `no`, and a date of 2026-01-02.
    hint = "; put it in quotes" if details["type"] == "string_type" and _is_plain_word(value) else ""
    return f"{path}: {message}, not {shown}{hint}"


def explain_problem(location: Sequence[str], message: str) -> str:
    """Return `path.of.key: what is wrong`, for a message that may begin with the path of a key."""
    names_key = message.startswith(location[0] if location else tuple(f"{key}." for key in Config.model_fields))
    return message if names_key else f"{'.'.join(location) or 'the configuration'}: {message}"


def shorten(text: str) -> str:
    """Return a text of at most 60 characters."""
    return text if len(text) <= 60 else text[:57] + "…"


class _BoundedText(reprlib.Repr):
    """Python's text for a value, bounded: aliases can make a value huge, and Python prints no huge integer."""

    def repr_int(self, number: int, level: int) -> str:
        num_bits = number.bit_length()
        return super().repr_int(number, level) if num_bits < 1000 else f"a number of {num_bits:,} bits"


def _in_yaml(value: object) -> str:
    """Return a value as YAML writes it, if that is a single word."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value) if isinstance(value, datetime.date) else _BoundedText().repr(value)


def _is_plain_word(value: object) -> bool:
    return isinstance(value, bool | int | float | datetime.date)


def _known_keys(location: Sequence[str]) -> list[str]:
    """Return the keys of the section at `location`."""
    if location[:1] == ["network"]:  # [network, 3, residual, body, 1, conv]
        return [key for key in LAYERS[location[-1]].model_fields if key != "kind"]
    section: type[Section] = Config
    for part in location:
        inner = section_in(section.model_fields[part].annotation)
        assert inner is not None
        section = inner
    return list(section.model_fields)


def _did_you_mean_elsewhere(key: str) -> str:
    """Name the key of another section with the same or nearly the same name."""
    path_of_key = {path.rpartition(".")[2]: path for path in reversed(list(_paths_of_values()))}
    matches = difflib.get_close_matches(key, list(path_of_key), n=1)
    return f"; did you mean {path_of_key[matches[0]]}?" if matches else ""


def _paths_of_values(section: type[Section] = Config, prefix: str = "") -> Iterator[str]:
    inner_sections = {key: section_in(field.annotation) for key, field in section.model_fields.items()}
    # Keys that only some names of an optimizer or a schedule take are the least likely.
    for key in sorted(inner_sections, key=lambda key: issubclass(inner_sections[key] or Section, OptionsByName)):
        inner = inner_sections[key]
        if inner is not None:
            yield from _paths_of_values(inner, f"{prefix}{key}.")
        else:
            yield prefix + key
