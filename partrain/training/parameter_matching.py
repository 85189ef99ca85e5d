"""Finds a network's parameters among tensors that another network has, which may have other names.

PyTorch names a tensor after the attributes that lead to it, so the same network may have `conv1.weight`, or
`features.0.weight` in a Sequential. Wrappers add a part: `module.` (DataParallel), `_orig_mod.` (torch.compile).
A file has its tensors in the order of their names, not of their layers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from partrain.network.layers import Shape

Shapes = Mapping[str, Shape]
# The tensors of each layer, by the layer's name and the tensor's own ("weight").
Layers = dict[str, dict[str, Shape]]

_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}


def match_parameters(needed: Shapes, found: Shapes) -> dict[str, str]:
    """Return the name of the tensor that belongs to each parameter; their shapes may differ.

    A tensor belongs to the parameter with its name, after the names of wrappers and a common prefix are removed. If a
    kind of layer (convolution, dense, normalisation, batch normalisation) has other names, layers of this kind are
    matched in their order: those of the network, and those of the file sorted by name, with numbers as numbers. That
    requires that both have equally many, and that at most one of them differs in shape, as the last layer does if there
    are other classes.

    Parameters
    ----------
    needed : shapes of the network's parameters by name, in the order of the layers.
    found : shapes of the tensors by name.
    """
    names = _plain_names(needed, found)
    own, others = _layers(needed), _layers({plain: found[name] for plain, name in names.items()})
    matched = {name: names[name] for name in needed if name in names}
    for kind in dict.fromkeys(map(_kind, own.values())):
        for layer, other in _in_order(_of_kind(own, kind), _of_kind(others, kind)).items():
            tensors = [tensor for tensor in own[layer] if tensor in others[other]]
            matched |= {_join(layer, tensor): names[_join(other, tensor)] for tensor in tensors}
    return matched


def split_name(name: str) -> tuple[str, str]:
    """Return the layer's part of a tensor's name, and the rest: "conv1", "weight"."""
    layer, _, tensor = name.rpartition(".")
    return layer, tensor


def _join(layer: str, tensor: str) -> str:
    return f"{layer}.{tensor}" if layer else tensor


def _plain_names(needed: Iterable[str], found: Iterable[str]) -> dict[str, str]:
    """Return the tensors' names by their plain ones, without wrappers and without a prefix that is not the network's.

    A prefix is removed if all tensors have it, or if the whole network is below it.
    """
    plain = {".".join(part for part in name.split(".") if part not in _WRAPPERS): name for name in found}
    if len(plain) < len(set(found)):  # a layer is called like a wrapper
        plain = {name: name for name in found}
    known = set(needed)
    if known & plain.keys():
        return plain
    ends = {name[: -len(end)] for name in plain for end in known if name.endswith(f".{end}")}
    for prefix in sorted(ends):
        below = {name.removeprefix(prefix): original for name, original in plain.items() if name.startswith(prefix)}
        if len(below) == len(plain) or known <= below.keys():
            return below | {name: original for name, original in plain.items() if not name.startswith(prefix)}
    return plain


def _layers(shapes: Shapes) -> Layers:
    layers: Layers = {}
    for name, shape in shapes.items():
        layer, tensor = split_name(name)
        layers.setdefault(layer, {})[tensor] = shape
    return layers


def _kind(tensors: Shapes) -> object:
    """Return the kind of a layer: batch normalisation, or the number of its weight's axes."""
    return "batch normalisation" if "running_mean" in tensors else len(tensors.get("weight", ()))


def _of_kind(layers: Layers, kind: object) -> Layers:
    return {name: tensors for name, tensors in layers.items() if "weight" in tensors and _kind(tensors) == kind}


def _in_order(own: Layers, others: Layers) -> dict[str, str]:
    """Return the layer that belongs to each of the network's layers of one kind by its order; empty: none does."""
    pairs = dict(zip(own, sorted(others, key=_natural), strict=False))
    moves = any(other in own and other != layer for layer, other in pairs.items())
    differing = [
        layer
        for layer, other in pairs.items()
        if any(others[other].get(tensor, shape) != shape for tensor, shape in own[layer].items())
    ]
    return {} if len(own) != len(others) or moves or len(differing) > 1 else pairs


def _natural(name: str) -> list[str | int]:
    """Return a key that sorts features.2 before features.10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", name)]
