"""Which class computes which kind of layer."""

from __future__ import annotations

from typing import Any

from partrain.network.layers import Conv2d, Dense, Dropout, Flatten, Layer, MaxPool2d, Relu
from partrain.network.loop_layers.convolution import Conv2dLoops
from partrain.network.loop_layers.dense import DenseLoops
from partrain.network.loop_layers.elementwise import DropoutLoops, FlattenLoops, ReluLoops
from partrain.network.loop_layers.pooling import MaxPool2dLoops

# Each class has `KERNELS`, the kernels that it calls.
LOOPS_LAYERS: dict[type[Layer], Any] = {
    Conv2d: Conv2dLoops,
    MaxPool2d: MaxPool2dLoops,
    Relu: ReluLoops,
    Flatten: FlattenLoops,
    Dense: DenseLoops,
    Dropout: DropoutLoops,
}
