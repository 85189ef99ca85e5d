"""The stages of a network: which layers are computed together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from partrain.kernels.compiler.flags import Kernel
from partrain.network.convolution_passes import forward_pass
from partrain.network.execution import Views
from partrain.network.layers import Conv2d, Dense, Dropout, Flatten, Layer, MaxPool2d, Relu, Residual, every_layer
from partrain.network.network import Network
from partrain.network.stages.convolution import ConvStage
from partrain.network.stages.dense import DenseStage
from partrain.network.stages.dropout import DropoutStage
from partrain.network.stages.flatten import FlattenStage
from partrain.network.stages.pooling import MaxPoolStage
from partrain.network.stages.relu import ReluStage
from partrain.network.stages.residual import ResidualStage
from partrain.network.stages.sequence import StageSequence
from partrain.network.stages.stage import Stage

# By the layer that begins the stage. A class has `KERNELS`, the kernels that it calls (besides those of a convolution's
# forward pass), and `followers`, the kinds of layers that become part of the stage if they follow, in this order.
_STAGES: dict[type[Layer], Any] = {
    Conv2d: ConvStage,
    MaxPool2d: MaxPoolStage,
    Relu: ReluStage,
    Flatten: FlattenStage,
    Dense: DenseStage,
    Dropout: DropoutStage,
    Residual: ResidualStage,
}


def stage_kernels(layers: Iterable[Layer]) -> Iterator[Kernel]:
    """Yield the kernels that the stages call which begin with these layers."""
    for layer in every_layer(layers):
        yield from _STAGES[type(layer)].KERNELS
        if isinstance(layer, Conv2d):
            yield from forward_pass(layer).KERNELS


def make_stages(layers: Iterable[Layer], network: Network, views: Views, num: int) -> StageSequence:
    """Group layers of a network into stages.

    Parameters
    ----------
    layers : those of the network, or of a branch.
    network : the network's shapes.
    views : views of the parameters, by name.
    num : the largest number of examples in a call.
    """
    waiting = list(layers)
    stages: list[Stage] = []
    while waiting:
        first, together = waiting[0], [waiting.pop(0)]
        kind = _STAGES[type(first)]
        for follower in kind.followers:
            if waiting and isinstance(waiting[0], follower):
                together.append(waiting.pop(0))
        if isinstance(first, Residual):
            body, shortcut = (make_stages(branch, network, views, num) for branch in (first.body, first.shortcut))
            stages.append(ResidualStage(tuple(together), body, shortcut, num))
        else:
            stages.append(kind(tuple(together), network, views, num))
    return StageSequence(stages, num)
