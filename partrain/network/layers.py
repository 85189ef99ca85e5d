"""Layer descriptions: shapes and parameters, and the number of multiply-adds.

network.layer_building makes them from a configuration; network.loops_execution and network.fast_execution compute them.

Shapes of one example: (C, H, W) channels, rows, columns; (D,) after flatten. F filters; R, S filter rows,
columns; P, Q output rows, columns; E dense outputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from partrain.network.parameters import Parameter

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """The attributes of all layers.

    Attributes
    ----------
    multiply_adds : those of one example's forward pass.
    is_frozen : whether its parameters stay as they are in a training.
    """

    name: str
    input_shape: Shape
    output_shape: Shape
    parameters: tuple[Parameter, ...] = ()
    multiply_adds: int = 0
    is_frozen: bool = False


@dataclass(frozen=True)
class Conv2d(Layer):
    """A convolution; its parameters are `weight` (F, C/groups, R, S) and, unless it has none, `bias` (F,).

    Attributes
    ----------
    gradient_share : the share of its outputs whose gradient is expected not to be zero, by the layers that follow.
    """

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    gradient_share: float = 1.0

    @property
    def has_bias(self) -> bool:
        """Whether it has a bias for each filter."""
        return len(self.parameters) > 1


@dataclass(frozen=True)
class MaxPool2d(Layer):
    """The maximum of each window; rows and columns that do not fill a window are ignored."""

    window: tuple[int, int] = (2, 2)
    stride: tuple[int, int] = (2, 2)
    padding: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class AvgPool2d(Layer):
    """The mean of each window, with zeros for the padding; rows and columns that do not fill a window are ignored."""

    window: tuple[int, int] = (2, 2)
    stride: tuple[int, int] = (2, 2)
    padding: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class GlobalAvgPool2d(Layer):
    """The mean of each channel: (C, H, W) to (C, 1, 1)."""


@dataclass(frozen=True)
class Relu(Layer):
    """max(x, 0)."""


@dataclass(frozen=True)
class Flatten(Layer):
    """(C, H, W) to (C·H·W,), in this order."""


@dataclass(frozen=True)
class Dense(Layer):
    """A fully connected layer; its parameters are `weight` (E, D) and `bias` (E,)."""


@dataclass(frozen=True)
class Dropout(Layer):
    """In training, sets each number to 0 with probability `rate`, and multiplies the others by 1/(1-rate)."""

    rate: float = 0.5


@dataclass(frozen=True)
class GroupNorm(Layer):
    """Normalises the channels of each group; its parameters are `weight` (C,) and `bias` (C,)."""

    groups: int = 1
    eps: float = 1e-5


@dataclass(frozen=True)
class LayerNorm(Layer):
    """Normalises all numbers of an example; its parameters `weight` and `bias` have the shape of the input."""

    eps: float = 1e-5


@dataclass(frozen=True)
class BatchNorm(Layer):
    """Normalises each channel over a tile; its parameters are `weight`, `bias`, `running_mean`, `running_var` (C,)."""

    eps: float = 1e-5


@dataclass(frozen=True)
class Activation(Layer):
    """Computes each number by itself; ReLU is no such layer, because others compute it along with their own."""


@dataclass(frozen=True)
class LeakyRelu(Activation):
    """x if x > 0, else slope · x."""

    slope: float = 0.01


@dataclass(frozen=True)
class Gelu(Activation):
    """x · P(x), with P the normal distribution function; `approximate`: "none" or "tanh"."""

    approximate: str = "none"


@dataclass(frozen=True)
class Silu(Activation):
    """x / (1 + exp(-x))."""


@dataclass(frozen=True)
class Tanh(Activation):
    """The hyperbolic tangent."""


@dataclass(frozen=True)
class Sigmoid(Activation):
    """1 / (1 + exp(-x))."""


@dataclass(frozen=True)
class Residual(Layer):
    """body(x) + shortcut(x); without layers, the shortcut is x itself. The inner layers have the parameters."""

    body: tuple[Layer, ...] = ()
    shortcut: tuple[Layer, ...] = ()


def leaf_layers(layers: Iterable[Layer]) -> Iterator[Layer]:
    """Yield the layers in the order in which they are numbered, with those of residual layers in place of these."""
    for layer in layers:
        if isinstance(layer, Residual):
            yield from leaf_layers((*layer.body, *layer.shortcut))
        else:
            yield layer


def every_layer(layers: Iterable[Layer]) -> Iterator[Layer]:
    """Yield all layers: each one, and after a residual layer those of its body and of its shortcut."""
    for layer in layers:
        yield layer
        if isinstance(layer, Residual):
            yield from every_layer((*layer.body, *layer.shortcut))


def is_trained(layer: Layer) -> bool:
    """Return whether the layer, or a layer in it, has parameters that are not frozen."""
    return any(leaf.parameters and not leaf.is_frozen for leaf in leaf_layers((layer,)))
