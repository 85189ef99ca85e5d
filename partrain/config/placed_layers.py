"""Gives each entry of `network` its name and its shapes, and finds what does not fit.

Shapes of one example: (C, H, W) channels, rows, columns; (D,) after flatten; see `config.layer_shapes` for sizes that
are not known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from partrain.config.layer_shapes import KnownShape, is_known, output_shape, shape_words
from partrain.config.problem import Problem
from partrain.config.schema.layer_entries import Residual
from partrain.config.schema.layers import Conv, Dense, Flatten
from partrain.config.schema.normalisation_layers import BatchNorm, GroupNorm, LayerNorm
from partrain.config.schema.values import Section
from partrain.config.shortcut_hints import fitting_shortcut

_WITH_PARAMETERS = (Conv, Dense, BatchNorm, GroupNorm, LayerNorm)


@dataclass(frozen=True)
class PlacedLayer:
    """An entry of a network in its place.

    Attributes
    ----------
    place : its number in its sequence of entries, from 0.
    name : its kind and number, e.g. `conv2`; None after an entry that could not be read.
    entry : its entry; None if that could not be read.
    body, shortcut : the layers in a residual layer.
    """

    place: int
    name: str | None
    entry: Section | None
    input_shape: KnownShape
    output_shape: KnownShape
    body: tuple[PlacedLayer, ...] = ()
    shortcut: tuple[PlacedLayer, ...] = ()

    def label(self, path: str) -> str:
        """Return the layer's path and name for a message."""
        return path if self.name is None else f"{path} ({self.name})"

    @property
    def has_parameters(self) -> bool:
        """Whether the layer itself has parameters."""
        return isinstance(self.entry, _WITH_PARAMETERS)


@dataclass
class PlacedNetwork:
    """The layers of a network, and what is wrong with their shapes."""

    layers: tuple[PlacedLayer, ...] = ()
    problems: list[Problem] = field(default_factory=list)
    has_unread_entries: bool = False


def place_layers(entries: Sequence[Section | None], input_shape: KnownShape) -> PlacedNetwork:
    """Place the entries of `network` for examples of `input_shape` (C, H, W).

    A dense layer that follows an image of one pixel, as global pooling gives it, gets a `flatten` of its own.

    Parameters
    ----------
    entries : the layers; None for one that could not be read. Of a layer, attributes may be missing.
    """
    placement = _Placement()
    placement.network.layers = placement.place("network", entries, input_shape)
    return placement.network


def every_placed(layers: Iterable[PlacedLayer]) -> Iterator[PlacedLayer]:
    """Yield all layers: each one, and after a residual layer those of its body and of its shortcut."""
    for layer in layers:
        yield layer
        yield from every_placed((*layer.body, *layer.shortcut))


class _Placement:
    """Counts the layers of each kind over the whole network, and collects the problems."""

    def __init__(self) -> None:
        self.network = PlacedNetwork()
        self._counts: dict[str, int] = {}

    def place(self, path: str, entries: Sequence[Section | None], shape: KnownShape) -> tuple[PlacedLayer, ...]:
        """Place a sequence of layers."""
        layers: list[PlacedLayer] = []
        for place, entry in enumerate(entries):
            if isinstance(entry, Dense) and shape is not None and shape[1:] == (1, 1):
                flatten = Flatten()
                layers.append(PlacedLayer(place, self._next_name(flatten), flatten, shape, shape[:1]))
                shape = shape[:1]
            layers.append(self._place(f"{path}.{place}", place, entry, shape))
            shape = layers[-1].output_shape
        return tuple(layers)

    def _place(self, path: str, place: int, entry: Section | None, shape: KnownShape) -> PlacedLayer:
        if entry is None:
            self.network.has_unread_entries = True
            return PlacedLayer(place, None, None, shape, None)
        name = self._next_name(entry)
        if isinstance(entry, Residual):
            return self._place_residual(f"{path}.residual", place, name, entry, shape)
        output = output_shape(entry, shape, lambda message: self._report(path, name, message))
        return PlacedLayer(place, name, entry, shape, output)

    def _place_residual(
        self, path: str, place: int, name: str | None, entry: Residual, shape: KnownShape
    ) -> PlacedLayer:
        entries = getattr(entry, "body", None), getattr(entry, "shortcut", None)
        if None in entries:
            self.network.has_unread_entries = True
        body = self.place(f"{path}.body", entries[0] or (), shape)
        shortcut = self.place(f"{path}.shortcut", entries[1] or (), shape)
        output = body[-1].output_shape if body else None
        other = None if entries[1] is None else shortcut[-1].output_shape if shortcut else shape
        if output is not None and other is not None:
            if not _may_be_equal(output, other):
                given = "the shortcut gives" if shortcut else "its input, which the shortcut passes on, is"
                hint = fitting_shortcut(shape, output) if shape is not None else ""
                self._report(
                    path, name, f"the body gives {shape_words(output)}, but {given} {shape_words(other)}{hint}"
                )
            elif not is_known(output):
                output = tuple(a if a is not None else b for a, b in zip(output, other, strict=True))
        return PlacedLayer(place, name, entry, shape, other if output is None else output, body, shortcut)

    def _next_name(self, entry: Section) -> str | None:
        if self.network.has_unread_entries:
            return None
        kind: str = entry.kind.removeprefix("max_")  # type: ignore[attr-defined]
        self._counts[kind] = self._counts.get(kind, 0) + 1
        return f"{kind}{self._counts[kind]}"

    def _report(self, path: str, name: str | None, message: str) -> None:
        label = path if name is None else f"{path} ({name})"
        self.network.problems.append(Problem(tuple(path.split(".")), f"{label}: {message}"))


def _may_be_equal(one: tuple[int | None, ...], other: tuple[int | None, ...]) -> bool:
    return len(one) == len(other) and all(a == b or a is None or b is None for a, b in zip(one, other, strict=True))
