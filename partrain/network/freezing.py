"""Freezes layers: their parameters stay as they are in a training."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from partrain.errors import ConfigError, did_you_mean
from partrain.network.layers import Layer, Residual, every_layer, has_parameters, is_trained


def with_frozen(layers: tuple[Layer, ...], names: Collection[str]) -> tuple[Layer, ...]:
    """Return the layers, of which those of these names are frozen; all layers in a residual layer of such a name.

    Raises
    ------
    ConfigError
        A name is that of no layer, or of one without parameters; or no layer with parameters is left to train.
    """
    if not names:
        return layers
    known = {layer.name: layer for layer in every_layer(layers)}
    with_parameters = [name for name, layer in known.items() if has_parameters(layer)]
    problems = []
    for name in names:
        if name not in known:
            guess = (
                did_you_mean(name, with_parameters) or f"; the layers with parameters are {', '.join(with_parameters)}"
            )
            problems.append(f"training.freeze: there is no layer {name}{guess}")
        elif name not in with_parameters:
            problems.append(f"training.freeze: {name} has no parameters; remove it")
    frozen = tuple(_frozen(layer, names) for layer in layers)
    if not problems and not any(map(is_trained, frozen)):
        problems.append("training.freeze: no layer is left to train; remove at least one name")
    if problems:
        raise ConfigError("\n".join(problems))
    return frozen


def _frozen(layer: Layer, names: Collection[str]) -> Layer:
    if isinstance(layer, Residual):
        inner = every_layer((layer,)) if layer.name in names else ()
        all_names = {*names, *(each.name for each in inner)}
        branches = [tuple(_frozen(each, all_names) for each in branch) for branch in (layer.body, layer.shortcut)]
        return replace(layer, body=branches[0], shortcut=branches[1])
    return replace(layer, is_frozen=True) if layer.name in names else layer
