"""The reference of the configuration, generated from the schema: each key with type, default and meaning."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from partrain.config.identity import LOCATION_KEY, RUNTIME_KEYS
from partrain.config.schema.config import Config
from partrain.config.schema.layer_entries import LAYERS
from partrain.config.schema.values import Section, section_in
from partrain.config.yaml_writer import dump_yaml, number_text

# The widths of the text's columns; the meaning follows below them.
_KEY_WIDTH, _TYPE_WIDTH = 34, 26
# Larger bounds only keep a number within the range of its type.
_LARGEST_BOUND_SHOWN = 2**31 - 1
_KIND_OF_LAYER = "layer"

_RUNTIME_KEYS = ", ".join(f"`{key}`" for key in (*RUNTIME_KEYS, LOCATION_KEY))
NOTES = (
    "N is the number of a layer, counted from 0. A pair [rows, columns] of equal numbers can be written as one number. "
    f"`partrain resume --set` changes only {_RUNTIME_KEYS}; with `training.stop_early` or the schedule `plateau`, "
    "not the intervals between evaluations."
)


@dataclass(frozen=True)
class Key:
    """A key of the configuration.

    Attributes
    ----------
    key : the dotted path, as `--set` takes it; N stands for the number of a layer.
    type : the type and bounds, in words.
    required : whether it has no default.
    default : the default; None also for a required key and for a kind of layer.
    meaning : the effect of the key.
    """

    key: str
    type: str
    required: bool
    default: Any
    meaning: str

    def default_text(self) -> str:
        """Return the default as YAML."""
        if self.type == _KIND_OF_LAYER:
            return ""
        return "required" if self.required else _as_yaml(self.default)


def configuration_keys() -> list[Key]:
    """Return every key of the configuration, in the order of the schema."""
    return list(_keys_of(Config, ""))


def to_json(keys: Sequence[Key]) -> list[dict[str, Any]]:
    """Return the keys as plain containers."""
    return [asdict(key) for key in keys]


def to_markdown(keys: Sequence[Key]) -> str:
    """Return the keys as a table in Markdown, with the notes below it."""
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for key in keys:
        default = key.default_text()
        default = default if key.required or not default else f"`{default}`"
        rows.append(f"| `{key.key}` | {key.type} | {default} | {key.meaning} |")
    return "\n".join([*rows, "", NOTES])


def to_text(keys: Sequence[Key], width: int = 80) -> str:
    """Return the keys as a text: key, type and default in columns, and the meaning below.

    Parameters
    ----------
    keys : the keys.
    width : the width of the terminal; the text uses 80 to 110 characters.
    """
    width = max(80, min(width, 110))
    lines = [f"{'KEY':<{_KEY_WIDTH}} {'TYPE':<{_TYPE_WIDTH}} DEFAULT"]
    for key in keys:
        types = textwrap.wrap(key.type, _TYPE_WIDTH, break_on_hyphens=False)
        lines.append(f"{key.key:<{_KEY_WIDTH}} {types[0]:<{_TYPE_WIDTH}} {key.default_text()}".rstrip())
        lines += [f"{'':<{_KEY_WIDTH}} {line}" for line in types[1:]]
        lines += _wrap(key.meaning, width, indent="    ")
    return "\n".join([*lines, "", *_wrap(NOTES, width)])


def _wrap(text: str, width: int, indent: str = "") -> list[str]:
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def _keys_of(section: type[Section], prefix: str) -> Iterator[Key]:
    schema = section.model_json_schema()
    if "$ref" in schema:  # a section that may contain itself
        schema = schema["$defs"][section.__name__]
    properties = schema["properties"]
    for name, field in section.model_fields.items():
        if name == "kind":  # tells layers apart inside the program; a file does not have it
            continue
        inner = section_in(field.annotation)
        if field.description is not None:
            type_ = _type_in_words(properties[name]) if inner is None else "mapping or null"
            yield Key(
                prefix + name,
                type_,
                field.is_required(),
                _one_number_if_square(properties[name].get("default")),
                field.description,
            )
        if inner is not None:
            yield from _keys_of(inner, f"{prefix}{name}.")
        if name == "network":
            for kind, layer in LAYERS.items():
                meaning = " ".join((layer.__doc__ or "").split())
                yield Key(f"network.N.{kind}", _KIND_OF_LAYER, False, None, meaning)
                yield from _keys_of(layer, f"network.N.{kind}.")


def _type_in_words(schema: dict[str, Any]) -> str:
    """Return the type that a JSON schema describes, in words."""
    *others, last = _choices(schema)
    return f"{', '.join(others)} or {last}" if others else last


def _choices(schema: dict[str, Any]) -> list[str]:
    if "anyOf" in schema:
        return [words for choice in schema["anyOf"] for words in _choices(choice)]
    if "const" in schema:
        return [str(schema["const"])]
    if "enum" in schema:
        return [str(value) for value in schema["enum"]]
    match schema["type"]:
        case "array" if "entries" in schema:
            return [f"{schema['entries']}, each a {_choices(schema['prefixItems'][0])[0]}"]
        case "array" if "prefixItems" in schema:
            return [*_choices(schema["prefixItems"][0]), "[rows, columns]"]
        case "array" if schema["items"].get("type") == "string" and "enum" not in schema["items"]:
            return ["list of names"]
        case "array" if "enum" in schema["items"]:
            return [f"list of {' and '.join(schema['items']['enum'])}"]
        case "array":
            return ["list of layers"]
        case "string":
            return ["text"]
        case "boolean":
            return ["true", "false"]
        case "null":
            return ["null"]
        case number:
            return [" ".join([number, *_bounds(schema)])]


def _bounds(schema: dict[str, Any]) -> list[str]:
    if schema["type"] == "integer" and "exclusiveMinimum" in schema:
        return [f"≥ {schema['exclusiveMinimum'] + 1}"]
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [
        f"{sign} {_as_yaml(schema[name])}"
        for name, sign in signs.items()
        if name in schema and schema[name] <= _LARGEST_BOUND_SHOWN
    ]
    return [" and ".join(bounds)]


def _one_number_if_square(default: Any) -> Any:
    """Return [rows, columns] of the same size as one number, and other values as they are."""
    return default[0] if isinstance(default, list) and len(default) == 2 and default[0] == default[1] else default


def _as_yaml(value: Any) -> str:
    if isinstance(value, float):
        return number_text(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_as_yaml, value))}]"
    return dump_yaml(value).removesuffix("\n...\n").strip()
