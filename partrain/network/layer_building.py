"""Builds a network's layers from its configuration: shapes and initial deviations.

All errors of shapes are found here, before anything is computed.

Shapes of one example: (C, H, W) channels, rows, columns; (D,) after flatten. F filters; R, S filter rows,
columns; P, Q output rows, columns; E dense outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from partrain.config.schema import layers as layer_schema
from partrain.config.schema.values import Section
from partrain.errors import ConfigError
from partrain.network.layers import Conv2d, Dense, Dropout, Flatten, Layer, MaxPool2d, Relu, Shape
from partrain.network.parameters import Parameter


def build_layers(descriptions: Sequence[Section], input_shape: Shape) -> tuple[Layer, ...]:
    """Build the layers for examples of `input_shape` (C, H, W).

    Raises
    ------
    ConfigError
        A layer does not fit the shape of its input; the message names the layer and its index.
    """
    layers: list[Layer] = []
    counts: dict[str, int] = {}
    shape = input_shape
    for place, description in enumerate(descriptions):
        kind = type(description).__name__.lower().replace("max", "")
        counts[kind] = counts.get(kind, 0) + 1
        name = f"{kind}{counts[kind]}"
        try:
            layer = _build_layer(name, description, shape, gain=_gain(descriptions[place + 1 :]))
        except ValueError as error:
            raise ConfigError(f"network.{place} ({name}): {error}") from error
        layers.append(layer)
        shape = layer.output_shape
    return tuple(layers)


def _gain(following: Sequence[Section]) -> float:
    """Return 2 for a layer that a ReLU follows, which halves the variance, else 1.

    Sources: He et al., arXiv 1502.01852, section 2.2; without a ReLU, LeCun et al., "Efficient BackProp".
    """
    for description in following:
        if isinstance(description, layer_schema.Relu):
            return 2.0
        if isinstance(description, layer_schema.Conv | layer_schema.Dense):
            return 1.0
    return 1.0


def _build_layer(name: str, description: Section, shape: Shape, *, gain: float) -> Layer:
    match description:
        case layer_schema.Conv():
            return _build_conv(name, description, shape, gain)
        case layer_schema.MaxPool(window=window):
            stride = description.stride or window
            C, H, W = _image(shape)
            P, Q = _num_positions((H, W), window, stride, (0, 0), "window")
            return MaxPool2d(name, shape, (C, P, Q), window=window, stride=stride)
        case layer_schema.Relu():
            return Relu(name, shape, shape)
        case layer_schema.Flatten():
            return Flatten(name, shape, (math.prod(_image(shape)),))
        case layer_schema.Dense(units=E):
            if len(shape) != 1:
                raise ValueError(f"needs a vector, but its input has the shape {shape}; put `flatten` before it")
            D = shape[0]
            weight = Parameter(f"{name}.weight", (E, D), math.sqrt(gain / D))
            bias = Parameter(f"{name}.bias", (E,), 0.0, role="bias")
            return Dense(name, shape, (E,), (weight, bias), multiply_adds=E * D)
        case layer_schema.Dropout(rate=rate):
            return Dropout(name, shape, shape, rate=rate)
    raise AssertionError(description)


def _build_conv(name: str, description: layer_schema.Conv, shape: Shape, gain: float) -> Conv2d:
    C, H, W = _image(shape)
    F, (R, S) = description.filters, description.kernel
    P, Q = _num_positions((H, W), (R, S), description.stride, description.padding, "kernel")
    weight = Parameter(f"{name}.weight", (F, C, R, S), math.sqrt(gain / (C * R * S)))
    bias = Parameter(f"{name}.bias", (F,), 0.0, role="bias")
    return Conv2d(
        name,
        shape,
        (F, P, Q),
        (weight, bias),
        multiply_adds=F * P * Q * C * R * S,
        stride=description.stride,
        padding=description.padding,
    )


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
