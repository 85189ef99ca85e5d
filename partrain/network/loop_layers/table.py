"""Which class computes which kind of layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from partrain.kernels.compiler.flags import Kernel
from partrain.network.execution import Views
from partrain.network.layers import (
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    Gelu,
    GlobalAvgPool2d,
    GroupNorm,
    Layer,
    LayerNorm,
    LeakyRelu,
    MaxPool2d,
    Relu,
    Residual,
    Sigmoid,
    Silu,
    Tanh,
    every_layer,
)
from partrain.network.loop_layers.activation import ActivationLoops
from partrain.network.loop_layers.convolution import Conv2dLoops
from partrain.network.loop_layers.dense import DenseLoops
from partrain.network.loop_layers.elementwise import DropoutLoops, FlattenLoops, ReluLoops
from partrain.network.loop_layers.layer import LoopsLayer
from partrain.network.loop_layers.normalisation import BatchNormLoops, GroupNormLoops, LayerNormLoops
from partrain.network.loop_layers.pooling import AvgPool2dLoops, MaxPool2dLoops
from partrain.network.loop_layers.residual import ResidualLoops
from partrain.network.loop_layers.sequence import LoopsSequence

# Each class has `KERNELS`, the kernels that it calls.
LOOPS_LAYERS: dict[type[Layer], Any] = {
    Conv2d: Conv2dLoops,
    MaxPool2d: MaxPool2dLoops,
    AvgPool2d: AvgPool2dLoops,
    GlobalAvgPool2d: AvgPool2dLoops,
    Relu: ReluLoops,
    Flatten: FlattenLoops,
    Dense: DenseLoops,
    Dropout: DropoutLoops,
    GroupNorm: GroupNormLoops,
    LayerNorm: LayerNormLoops,
    BatchNorm: BatchNormLoops,
    **dict.fromkeys((LeakyRelu, Gelu, Silu, Tanh, Sigmoid), ActivationLoops),
    Residual: ResidualLoops,
}


def loops_kernels(layers: Iterable[Layer]) -> Iterator[Kernel]:
    """Yield the kernels that compute these layers."""
    for layer in every_layer(layers):
        yield from LOOPS_LAYERS[type(layer)].KERNELS


class LoopsLayers:
    """The layers of a network with buffers for a tile.

    Attributes
    ----------
    sequence : computes them all.
    leaves : the leaf layers, in the order of `Network.leaf_layers`.
    """

    def __init__(self, layers: Sequence[Layer], parameters: Views, tile: int, dtype: str) -> None:
        self.leaves: list[LoopsLayer] = []
        self._parameters, self._tile, self._dtype = parameters, tile, dtype
        self.sequence = self._sequence_of(layers)

    def _sequence_of(self, layers: Sequence[Layer]) -> LoopsSequence:
        return LoopsSequence(layers, [self._make(layer) for layer in layers])

    def _make(self, layer: Layer) -> LoopsLayer:
        if isinstance(layer, Residual):
            body, shortcut = self._sequence_of(layer.body), self._sequence_of(layer.shortcut)
            return ResidualLoops(layer, body, shortcut, self._tile, self._dtype)
        made: LoopsLayer = LOOPS_LAYERS[type(layer)](layer, self._parameters, self._tile, self._dtype)
        self.leaves.append(made)
        return made
