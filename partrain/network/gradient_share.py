"""How many outputs of a convolution have a gradient, by the layers that follow it.

A ReLU passes on the gradients of about half of its inputs, a max pooling that of one input in each window, and dropout
those of the examples' units that it keeps. A normalisation gives every input a gradient, and so does a layer whose
outputs are sums of many inputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from partrain.config.schema import normalisation_layers as norms
from partrain.config.schema.layer_entries import Residual
from partrain.config.schema.layers import Conv, Dense, Dropout, MaxPool, Relu
from partrain.config.schema.values import Section


def gradient_share(following: Iterable[Section]) -> float:
    """Return the expected share of a layer's outputs whose gradient is not zero, if these layers follow it."""
    share = 1.0
    for description in following:
        match description:
            case Relu():
                share /= 2
            case MaxPool(window=window, stride=stride):
                share /= max(1, math.prod(stride or window))
            case Dropout(rate=rate):
                share *= 1 - rate
            case Conv() | Dense() | norms.BatchNorm() | norms.GroupNorm() | norms.LayerNorm() | Residual():
                break
    return share
