"""Builds normalisation layers, as layer_building builds the others."""

from __future__ import annotations

from partrain.config.schema import normalisation_layers as schema
from partrain.network.layers import BatchNorm, GroupNorm, LayerNorm, Shape
from partrain.network.parameters import Parameter

NormEntry = schema.GroupNorm | schema.LayerNorm | schema.BatchNorm


def build_normalisation(name: str, description: NormEntry, shape: Shape) -> GroupNorm | LayerNorm | BatchNorm:
    """Build a normalisation layer for inputs of a shape (C, H, W) or (D,)."""
    C, eps = shape[0], description.eps
    of_each = shape if isinstance(description, schema.LayerNorm) else (C,)
    weight = Parameter(
        f"{name}.weight", of_each, 0.0, role="scale", initial_value=0.0 if description.zero_init else 1.0
    )
    bias = Parameter(f"{name}.bias", of_each, 0.0, role="shift")
    match description:
        case schema.GroupNorm(groups=groups):
            return GroupNorm(name, shape, shape, (weight, bias), groups=groups, eps=eps)
        case schema.LayerNorm():
            return LayerNorm(name, shape, shape, (weight, bias), eps=eps)
    momentum = description.momentum
    mean = Parameter(f"{name}.running_mean", (C,), 0.0, role="average", momentum=momentum)
    variance = Parameter(f"{name}.running_var", (C,), 0.0, role="average", initial_value=1.0, momentum=momentum)
    return BatchNorm(name, shape, shape, (weight, bias, mean, variance), eps=eps)
