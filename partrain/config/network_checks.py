"""Checks a network as a whole: its shapes, its end, and the layers to freeze."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from partrain.config.layer_shapes import KnownShape, is_known
from partrain.config.placed_layers import PlacedLayer, PlacedNetwork, every_placed, place_layers
from partrain.config.problem import Problem
from partrain.config.schema.layers import Dropout
from partrain.config.schema.values import Section
from partrain.errors import did_you_mean


def network_problems(
    entries: Sequence[Section | None],
    image_shape: KnownShape,
    num_classes: int | None,
    freeze: Collection[str] = (),
) -> list[Problem]:
    """Return all that is wrong with a network.

    Parameters
    ----------
    entries : the layers; see `place_layers`.
    image_shape, num_classes : those of the data; None if they are not known.
    freeze : the names of the layers to freeze.
    """
    network = place_layers(entries, image_shape)
    problems = [*network.problems, *_problems_of_the_end(network.layers, num_classes)]
    if network.has_unread_entries:  # the names of the layers are not known
        return problems
    if not problems and entries and not any(layer.has_parameters for layer in every_placed(network.layers)):
        problems.append(Problem(("network",), "network: there is nothing to train; add a `conv` or a `dense` layer"))
        return problems
    return problems + [Problem(("training", "freeze"), message) for message in _problems_of_freezing(network, freeze)]


def _problems_of_the_end(layers: Sequence[PlacedLayer], num_classes: int | None) -> Iterator[Problem]:
    for outer in reversed(layers):
        inner = list(every_placed((outer,)))
        if outer.entry is None or any(layer.has_parameters for layer in inner):
            break
        if dropout := next((layer for layer in inner if isinstance(layer.entry, Dropout)), None):
            yield Problem(
                ("network", str(outer.place)),
                f"{dropout.label(f'network.{outer.place}')}: dropout after the last dense layer would discard class "
                "scores; move it before the last `dense`",
            )
            break
    if not layers or not is_known(layers[-1].output_shape):
        return
    output = layers[-1].output_shape
    assert output is not None
    if len(output) != 1:
        name = "" if layers[-1].name is None else f" ({layers[-1].name})"
        yield Problem(
            ("network",),
            f"network: the last layer{name} gives {output}, not a vector; "
            f"end with `flatten` and `dense: {{units: {num_classes or '…'}}}`",
        )
    elif num_classes is not None and (output[0] or 0) < num_classes:
        last = next((layer for layer in reversed(layers) if layer.input_shape != output), layers[-1])
        yield Problem(
            ("network", str(last.place)),
            f"{last.label(f'network.{last.place}')}: {output[0]} outputs are too few for the "
            f"{num_classes} classes of the data; give it at least {num_classes} units",
        )


def _problems_of_freezing(network: PlacedNetwork, freeze: Collection[str]) -> Iterator[str]:
    if not freeze:
        return
    layers = list(every_placed(network.layers))
    with_parameters = [layer.name for layer in layers if any(each.has_parameters for each in every_placed((layer,)))]
    names = [name for name in with_parameters if name is not None]
    is_right = True
    for name in dict.fromkeys(freeze):
        if name in names:
            continue
        is_right = False
        if any(layer.name == name for layer in layers):
            yield f"training.freeze: {name} has no parameters; remove it"
        else:
            guess = did_you_mean(name, names) or f"; the layers with parameters are {', '.join(names)}"
            yield f"training.freeze: there is no layer {name}{guess}"
    if is_right and not any(_trained(network.layers, freeze)):
        yield "training.freeze: no layer is left to train; remove at least one name"


def _trained(layers: Sequence[PlacedLayer], freeze: Collection[str]) -> Iterator[PlacedLayer]:
    """Yield the layers with parameters that are not frozen, by their own name or by that of a layer around them."""
    for layer in layers:
        if layer.name not in freeze:
            if layer.has_parameters:
                yield layer
            yield from _trained((*layer.body, *layer.shortcut), freeze)
