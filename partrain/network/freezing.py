"""Freezes layers: their parameters stay as they are in a training."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from partrain.network.layers import Layer, Residual, every_layer


def with_frozen(layers: tuple[Layer, ...], names: Collection[str]) -> tuple[Layer, ...]:
    """Return the layers, of which those of these names are frozen; all layers in a residual layer of such a name."""
    return tuple(_frozen(layer, names) for layer in layers) if names else layers


def _frozen(layer: Layer, names: Collection[str]) -> Layer:
    if isinstance(layer, Residual):
        inner = every_layer((layer,)) if layer.name in names else ()
        all_names = {*names, *(each.name for each in inner)}
        branches = [tuple(_frozen(each, all_names) for each in branch) for branch in (layer.body, layer.shortcut)]
        return replace(layer, body=branches[0], shortcut=branches[1])
    return replace(layer, is_frozen=True) if layer.name in names else layer
