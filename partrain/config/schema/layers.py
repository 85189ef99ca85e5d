"""The kinds of layers that an entry of `network` may be; `layer_entries` reads and writes the entries."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from partrain.config.schema.values import Fraction, NonNegativePair, PositiveInt, PositivePair, Section


class Conv(Section):
    """Convolution. With as many groups as channels it is depthwise: each filter sees one channel."""

    kind: Literal["conv"] = "conv"
    filters: PositiveInt = Field(description="The number of filters, that is, of output channels.")
    kernel: PositivePair = Field(description="The size of each filter.")
    stride: PositivePair = Field((1, 1), description="The distance between neighbouring outputs, in input pixels.")
    padding: NonNegativePair = Field((0, 0), description="The number of zeros added on each side of the input.")
    dilation: PositivePair = Field((1, 1), description="The distance between neighbouring taps of a filter, in pixels.")
    groups: PositiveInt = Field(
        1,
        description="The number of groups; it divides channels and filters. A filter sees the channels of its group.",
    )
    bias: bool = Field(True, description="Whether each filter has a bias. A normalisation that follows adds its own.")


class Relu(Section):
    """max(x, 0), element by element."""

    kind: Literal["relu"] = "relu"


class MaxPool(Section):
    """The maximum of each window. Rows and columns at the end that do not fill a window are left out."""

    kind: Literal["max_pool"] = "max_pool"
    window: PositivePair = Field(description="The size of the window.")
    stride: PositivePair | None = Field(
        None,
        description="The distance between neighbouring windows. If it is smaller than the window, windows overlap. "
        "null: the size of the window.",
    )
    padding: NonNegativePair = Field(
        (0, 0),
        description="The rows and columns added on each side, at most half the window; never a maximum.",
    )


class AvgPool(Section):
    """The mean of each window; padding counts as zeros, as by default in PyTorch (`count_include_pad`)."""

    kind: Literal["avg_pool"] = "avg_pool"
    window: PositivePair = Field(description="The size of the window.")
    stride: PositivePair | None = Field(
        None, description="The distance between neighbouring windows. null: the size of the window."
    )
    padding: NonNegativePair = Field(
        (0, 0), description="The number of zeros added on each side of the input, at most half the window."
    )


class GlobalAvgPool(Section):
    """The mean of each channel: an image of one pixel. `dense` may follow with or without `flatten`."""

    kind: Literal["global_avg_pool"] = "global_avg_pool"


class Flatten(Section):
    """Flattens (channels, rows, columns) into one vector. Required before the first dense layer."""

    kind: Literal["flatten"] = "flatten"


class Dense(Section):
    """Fully connected layer with a bias per unit. The last one has one unit per class."""

    kind: Literal["dense"] = "dense"
    units: PositiveInt = Field(description="The number of outputs.")


class Dropout(Section):
    """In training, sets values to 0 at random; does nothing elsewhere. Not allowed after the last dense layer."""

    kind: Literal["dropout"] = "dropout"
    rate: Fraction = Field(
        description="The probability that a value becomes 0. The other values are multiplied by 1/(1 - `rate`)."
    )
