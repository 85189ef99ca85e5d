"""Finds the problems that a configuration with errors has besides: those of its valid values.

pydantic checks whether values fit together only where each of them is valid by itself, and never looks at shapes. A
message that lists all problems at once saves the user a round for each.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from typing import Annotated, Any

import pydantic

from partrain.config.layer_shapes import Size
from partrain.config.network_checks import network_problems
from partrain.config.problem import Problem
from partrain.config.schema.augmentation import Augment
from partrain.config.schema.config import Config
from partrain.config.schema.layer_entries import LAYERS, LayerEntry, Residual
from partrain.config.schema.values import Section, section_in


def further_problems(mapping: Mapping[Any, Any], known: Iterable[tuple[str, ...]]) -> Iterator[Problem]:
    """Yield the problems of a configuration that pydantic refuses, besides those that pydantic names.

    Parameters
    ----------
    known : the locations of the errors that pydantic names.
    """
    config = _known_part(Config, mapping)
    # pydantic calls the checks of a section if there is no error inside it.
    unchecked = {location[:length] for location in known for length in range(len(location))}
    yield from _problems_of_sections(config, (), unchecked)
    data = getattr(config, "data", None)
    shape, num_classes = ((None, None, None), None) if data is None else _facts_of_images(data)
    training, entries = getattr(config, "training", None), getattr(config, "network", None)
    if entries is not None:
        yield from network_problems(entries, shape, num_classes, getattr(training, "freeze", ()))
    augment = getattr(training, "augment", None)
    if isinstance(augment, Augment) and shape[1] is not None and shape[2] is not None:
        with suppress(AttributeError):
            for message in augment.moves_out_of_sight(shape[1], shape[2]):
                yield Problem(("training", "augment"), message)


def _problems_of_sections(
    section: Section, path: tuple[str, ...], unchecked: Collection[tuple[str, ...]]
) -> Iterator[Problem]:
    for key, inner in vars(section).items():
        if isinstance(inner, Section):
            yield from _problems_of_sections(inner, (*path, key), unchecked)
    for check in section.checks() if path in unchecked else ():
        with suppress(AttributeError):  # of an invalid value
            for message in check:
                yield Problem(path, message)


def _facts_of_images(data: Section) -> tuple[tuple[Size, Size, Size], Size]:
    """Return the shape of the images and the number of classes, as far as the section `data` says."""
    match getattr(data, "name", None):
        case "mnist" | "fashion-mnist" | "synthetic-digits":
            return (1, 28, 28), 10
        case "cifar-10":
            return (3, 32, 32), 10
        case "folder":
            rows, columns = getattr(data, "size", None) or (None, None)
            return (getattr(data, "channels", None), rows, columns), None
    return (None, None, None), None


def _known_part(kind: type[Section], mapping: Mapping[Any, Any]) -> Any:
    """Return a section without attributes for those values that are invalid.

    An unknown key may be another one, misspelt: the nearest one has no attribute either, unless it is given.
    """
    mapping, values = kind.with_defaults(mapping), {}
    guesses = [guess for key in mapping for guess in difflib.get_close_matches(str(key), kind.model_fields, n=1)]
    for name, field in kind.model_fields.items():
        if name not in mapping:
            if name not in guesses and not field.is_required():
                values[name] = field.get_default(call_default_factory=True)
        elif (kind, name) in ((Config, "network"), (Residual, "body"), (Residual, "shortcut")):
            if isinstance(mapping[name], list):
                values[name] = [_known_entry(entry) for entry in mapping[name]]
        else:
            values |= _known_value(kind, name, mapping[name])
    section = kind.model_construct()
    section.__dict__.clear()
    section.__dict__.update(values)
    return section


def _known_value(kind: type[Section], name: str, value: Any) -> dict[str, Any]:
    try:
        return {name: _adapter(kind, name).validate_python(value, strict=True)}
    except pydantic.ValidationError:
        inner = section_in(kind.model_fields[name].annotation)
        return {name: _known_part(inner, value)} if inner is not None and isinstance(value, Mapping) else {}


@cache
def _adapter(kind: type[Section], name: str) -> pydantic.TypeAdapter[Any]:
    field = kind.model_fields[name]
    annotation: Any = Annotated[field.annotation, field]
    return pydantic.TypeAdapter(annotation)


@cache
def _entry_adapter() -> pydantic.TypeAdapter[Section]:
    return pydantic.TypeAdapter(LayerEntry)


def _known_entry(entry: Any) -> Section | None:
    """Return what is known of a layer; None if not even its kind is."""
    try:
        return _entry_adapter().validate_python(entry)
    except pydantic.ValidationError as error:
        if any(not details["loc"] for details in error.errors(include_url=False)):
            return None
    kind, fields = (entry, {}) if isinstance(entry, str) else next(iter(entry.items()))
    known: Section = _known_part(LAYERS[kind], fields or {})
    return known
