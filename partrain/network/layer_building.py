"""Builds a network's layers from its configuration: shapes and initial deviations.

All errors of shapes are found here, before anything is computed.

Shapes of one example: (C, H, W) channels, rows, columns; (D,) after flatten. F filters; R, S filter rows,
columns; P, Q output rows, columns; E dense outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

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
from partrain.network.shortcut_hints import fitting_shortcut


def build_layers(descriptions: Sequence[Section], input_shape: Shape) -> tuple[Layer, ...]:
    """Build the layers for examples of `input_shape` (C, H, W).

    A dense layer that follows an image of one place, as global pooling gives it, gets a `flatten` of its own.

    Raises
    ------
    ConfigError
        A layer does not fit the shape of its input; the message names the layer and its path in the configuration.
    """
    builder = _Builder()
    try:
        layers = builder.build("network", descriptions, input_shape)
    except _Unbuildable:
        layers = ()
    if builder.errors:
        raise ConfigError("\n".join(builder.errors))
    return layers


class _Unbuildable(Exception):
    """The shape after a wrong layer is not known, so no layer after it can be checked."""


class _Builder:
    """Counts the layers of each kind over the whole network, and collects the errors."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self._counts: dict[str, int] = {}

    def build(
        self, path: str, descriptions: Sequence[Section], shape: Shape, following: Sequence[Section] = ()
    ) -> tuple[Layer, ...]:
        """Build a sequence of layers; `following` are the layers after the sequence."""
        layers: list[Layer] = []
        for place, description in enumerate(descriptions):
            if isinstance(description, layer_schema.Dense) and shape[1:] == (1, 1):
                layers.append(Flatten(self._next_name(layer_schema.Flatten()), shape, shape[:1]))
                shape = shape[:1]
            name = self._next_name(description)
            after = (*descriptions[place + 1 :], *following)
            layer: Layer
            if isinstance(description, ResidualEntry):
                layer = self._build_residual(f"{path}.{place}.residual", name, description, shape, after)
            else:
                try:
                    layer = _build_layer(name, description, shape, after)
                except ValueError as error:
                    self.errors.append(f"{path}.{place} ({name}): {error}")
                    if not isinstance(description, norm_schema.GroupNorm):
                        raise _Unbuildable from error
                    layer = Layer(name, shape, shape)  # no number of groups changes the shape
            layers.append(layer)
            shape = layer.output_shape
        return tuple(layers)

    def _next_name(self, description: Section) -> str:
        kind: str = description.kind.removeprefix("max_")  # type: ignore[attr-defined]
        self._counts[kind] = self._counts.get(kind, 0) + 1
        return f"{kind}{self._counts[kind]}"

    def _build_residual(
        self, path: str, name: str, description: ResidualEntry, shape: Shape, following: Sequence[Section]
    ) -> Residual:
        body = self.build(f"{path}.body", description.body, shape, following)
        shortcut = self.build(f"{path}.shortcut", description.shortcut, shape, following)
        output = body[-1].output_shape
        other = shortcut[-1].output_shape if shortcut else shape
        if output != other:
            given = "the shortcut" if shortcut else "its input, which the shortcut passes on,"
            self.errors.append(
                f"{path} ({name}): the body gives {_words(output)}, but {given} {'gives' if shortcut else 'is'} "
                f"{_words(other)}{fitting_shortcut(shape, output)}"
            )
        multiply_adds = sum(layer.multiply_adds for layer in (*body, *shortcut))
        return Residual(name, shape, output, multiply_adds=multiply_adds, body=body, shortcut=shortcut)


def _words(shape: Shape) -> str:
    return " x ".join(map(str, shape)) if len(shape) > 1 else f"a vector of {shape[0]} numbers"


def _build_layer(name: str, description: Section, shape: Shape, following: Sequence[Section]) -> Layer:
    match description:
        case layer_schema.Conv():
            return _build_conv(name, description, shape, following)
        case layer_schema.MaxPool() | layer_schema.AvgPool():
            return _build_pool(name, description, shape)
        case layer_schema.GlobalAvgPool():
            return GlobalAvgPool2d(name, shape, (_image(shape)[0], 1, 1))
        case layer_schema.Relu():
            return Relu(name, shape, shape)
        case layer_schema.Flatten():
            return Flatten(name, shape, (math.prod(_image(shape)),))
        case layer_schema.Dense(units=E):
            if len(shape) != 1:
                raise ValueError(f"needs a vector, but its input has the shape {shape}; put `flatten` before it")
            D = shape[0]
            weight = Parameter(f"{name}.weight", (E, D), rule_before(following).deviation(D, E))
            bias = Parameter(f"{name}.bias", (E,), 0.0, role="bias")
            return Dense(name, shape, (E,), (weight, bias), multiply_adds=E * D)
        case layer_schema.Dropout(rate=rate):
            return Dropout(name, shape, shape, rate=rate)
        case act_schema.LeakyRelu() | act_schema.Gelu() | act_schema.Silu() | act_schema.Tanh() | act_schema.Sigmoid():
            return build_activation(name, description, shape)
        case norm_schema.GroupNorm() | norm_schema.LayerNorm() | norm_schema.BatchNorm():
            return build_normalisation(name, description, shape)
    raise AssertionError(description)


def _build_conv(name: str, description: layer_schema.Conv, shape: Shape, following: Sequence[Section]) -> Conv2d:
    C, H, W = _image(shape)
    F, (R, S) = description.filters, description.kernel
    _check_groups(description.groups, C, F)
    dilation = description.dilation
    extent = (R - 1) * dilation[0] + 1, (S - 1) * dilation[1] + 1
    noun = "kernel" if dilation == (1, 1) else "dilated kernel"
    P, Q = _num_positions((H, W), extent, description.stride, description.padding, noun)
    num_terms = C // description.groups * R * S
    num_outputs = F // description.groups * R * S  # that an input reaches
    deviation = rule_before(following).deviation(num_terms, num_outputs)
    weight = Parameter(f"{name}.weight", (F, C // description.groups, R, S), deviation)
    bias = Parameter(f"{name}.bias", (F,), 0.0, role="bias")
    return Conv2d(
        name,
        shape,
        (F, P, Q),
        (weight, bias) if description.bias else (weight,),
        multiply_adds=F * P * Q * num_terms,
        stride=description.stride,
        padding=description.padding,
        dilation=dilation,
        groups=description.groups,
        gradient_share=gradient_share(following),
    )


def _check_groups(groups: int, C: int, F: int) -> None:
    if C % groups or F % groups:
        both = math.gcd(C, F)
        fitting = ", ".join(str(k) for k in range(1, both + 1) if both % k == 0)
        raise ValueError(
            f"groups: {groups} does not divide its {C} input channels and {F} filters; these do: {fitting}"
        )


def _build_pool(name: str, description: layer_schema.MaxPool | layer_schema.AvgPool, shape: Shape) -> Layer:
    C, H, W = _image(shape)
    window, padding = description.window, description.padding
    if any(2 * padding[d] > window[d] for d in range(2)):
        raise ValueError(
            f"padding {padding[0]} x {padding[1]} is more than half the window {window[0]} x {window[1]}; "
            f"use at most {window[0] // 2} x {window[1] // 2}"
        )
    stride = description.stride or window
    output_shape = C, *_num_positions((H, W), window, stride, padding, "window")
    layer = MaxPool2d if isinstance(description, layer_schema.MaxPool) else AvgPool2d
    return layer(name, shape, output_shape, window=window, stride=stride, padding=padding)


def _image(shape: Shape) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise ValueError(f"needs an image (channels, rows, columns), but its input is a vector of {shape[0]} numbers")
    return shape[0], shape[1], shape[2]


def _num_positions(
    size: tuple[int, int],
    window: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    noun: str,
) -> tuple[int, int]:
    padded = (size[0] + 2 * padding[0], size[1] + 2 * padding[1])
    if window[0] > padded[0] or window[1] > padded[1]:
        with_padding = f" with its padding ({padded[0]} x {padded[1]})" if padding != (0, 0) else ""
        raise ValueError(
            f"the {noun} {window[0]} x {window[1]} is larger than its input {size[0]} x {size[1]}{with_padding}"
        )
    return (padded[0] - window[0]) // stride[0] + 1, (padded[1] - window[1]) // stride[1] + 1
