"""Builds activations, as layer_building builds the other layers."""

from __future__ import annotations

from partrain.config.schema import activations as schema
from partrain.network.layers import Activation, Gelu, LeakyRelu, Shape, Sigmoid, Silu, Tanh

ActivationEntry = schema.LeakyRelu | schema.Gelu | schema.Silu | schema.Tanh | schema.Sigmoid


def build_activation(name: str, description: ActivationEntry, shape: Shape) -> Activation:
    """Build an activation for inputs of any shape."""
    match description:
        case schema.LeakyRelu(slope=slope):
            return LeakyRelu(name, shape, shape, slope=slope)
        case schema.Gelu(approximate=approximate):
            return Gelu(name, shape, shape, approximate=approximate)
        case schema.Silu():
            return Silu(name, shape, shape)
        case schema.Tanh():
            return Tanh(name, shape, shape)
    return Sigmoid(name, shape, shape)
