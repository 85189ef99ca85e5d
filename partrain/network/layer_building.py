"""Builds a network's layers from its configuration: parameters and their initial deviations.

Shapes of one example: (C, H, W) channels, rows, columns; (D,) after flatten. F filters; R, S filter rows,
columns; P, Q output rows, columns; E dense outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

from partrain.config.layer_shapes import KnownShape
from partrain.config.placed_layers import PlacedLayer, place_layers
from partrain.config.schema import activations as act_schema
from partrain.config.schema import layers as layer_schema
from partrain.config.schema import normalisation_layers as norm_schema
from partrain.config.schema.layer_entries import Residual as ResidualEntry
from partrain.config.schema.values import Section
from partrain.errors import ConfigError
from partrain.network.activation_layers import build_activation
from partrain.network.gradient_share import gradient_share
from partrain.network.initial_rules import rule_before
from partrain.network.layers import (
    AvgPool2d,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    Layer,
    MaxPool2d,
    Relu,
    Residual,
    Shape,
)
from partrain.network.normalisation_layers import build_normalisation
from partrain.network.parameters import Parameter


def build_layers(descriptions: Sequence[Section], input_shape: Shape) -> tuple[Layer, ...]:
    """Build the layers for examples of `input_shape` (C, H, W).

    A dense layer that follows an image of one place, as global pooling gives it, gets a `flatten` of its own.

    Raises
    ------
    ConfigError
        Layers do not fit the shapes of their inputs; the message names each with its path in the configuration.
    """
    network = place_layers(descriptions, input_shape)
    if network.problems:
        raise ConfigError("\n".join(problem.message for problem in network.problems))
    return _build(network.layers)


def _build(placed: Sequence[PlacedLayer], following: Sequence[Section] = ()) -> tuple[Layer, ...]:
    """Build a sequence of layers; `following` are the layers after the sequence."""
    entries = [layer.entry for layer in placed if layer.entry is not None]
    return tuple(_build_layer(layer, (*entries[place + 1 :], *following)) for place, layer in enumerate(placed))


def _build_layer(placed: PlacedLayer, following: Sequence[Section]) -> Layer:
    assert placed.name is not None
    name, shape, output_shape = placed.name, _all_known(placed.input_shape), _all_known(placed.output_shape)
    match placed.entry:
        case layer_schema.Conv() as description:
            return _build_conv(name, description, shape, output_shape, following)
        case layer_schema.MaxPool() | layer_schema.AvgPool() as description:
            layer = MaxPool2d if isinstance(description, layer_schema.MaxPool) else AvgPool2d
            window, stride = description.window, description.stride or description.window
            return layer(name, shape, output_shape, window=window, stride=stride, padding=description.padding)
        case layer_schema.GlobalAvgPool():
            return GlobalAvgPool2d(name, shape, output_shape)
        case layer_schema.Relu():
            return Relu(name, shape, output_shape)
        case layer_schema.Flatten():
            return Flatten(name, shape, output_shape)
        case layer_schema.Dense():
            (D,), (E,) = shape, output_shape
            weight = Parameter(f"{name}.weight", (E, D), rule_before(following).deviation(D, E))
            bias = Parameter(f"{name}.bias", (E,), 0.0, role="bias")
            return Dense(name, shape, output_shape, (weight, bias), multiply_adds=E * D)
        case layer_schema.Dropout(rate=rate):
            return Dropout(name, shape, output_shape, rate=rate)
        case (
            act_schema.LeakyRelu() | act_schema.Gelu() | act_schema.Silu() | act_schema.Tanh() | act_schema.Sigmoid()
        ) as description:
            return build_activation(name, description, shape)
        case norm_schema.GroupNorm() | norm_schema.LayerNorm() | norm_schema.BatchNorm() as description:
            return build_normalisation(name, description, shape)
        case ResidualEntry():
            body, shortcut = _build(placed.body, following), _build(placed.shortcut, following)
            multiply_adds = sum(layer.multiply_adds for layer in (*body, *shortcut))
            return Residual(name, shape, output_shape, multiply_adds=multiply_adds, body=body, shortcut=shortcut)
    raise AssertionError(placed.entry)


def _build_conv(
    name: str, description: layer_schema.Conv, shape: Shape, output_shape: Shape, following: Sequence[Section]
) -> Conv2d:
    C, (F, P, Q), (R, S) = shape[0], output_shape, description.kernel
    num_terms = C // description.groups * R * S
    num_outputs = F // description.groups * R * S  # that an input reaches
    deviation = rule_before(following).deviation(num_terms, num_outputs)
    weight = Parameter(f"{name}.weight", (F, C // description.groups, R, S), deviation)
    bias = Parameter(f"{name}.bias", (F,), 0.0, role="bias")
    return Conv2d(
        name,
        shape,
        output_shape,
        (weight, bias) if description.bias else (weight,),
        multiply_adds=F * P * Q * num_terms,
        stride=description.stride,
        padding=description.padding,
        dilation=description.dilation,
        groups=description.groups,
        gradient_share=gradient_share(following),
    )


def _all_known(shape: KnownShape) -> Shape:
    assert shape is not None
    sizes = tuple(size for size in shape if size is not None)
    assert len(sizes) == len(shape)
    return sizes
