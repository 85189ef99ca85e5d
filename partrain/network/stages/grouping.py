"""The stages of a network: which layers are computed together."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from partrain.kernels.compiler.flags import Kernel
from partrain.network.execution import Views
from partrain.network.layers import (
    Activation,
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
)
from partrain.network.network import Network
from partrain.network.stages.activation import ActivationStage
from partrain.network.stages.channel_norm import BatchNormStage, GroupNormStage
from partrain.network.stages.convolution import ConvStage
from partrain.network.stages.dense import DenseStage
from partrain.network.stages.dropout import DropoutStage
from partrain.network.stages.flatten import FlattenStage
from partrain.network.stages.gradient_buffers import GradientBuffers, SharesGradients
from partrain.network.stages.layer_norm import LayerNormStage
from partrain.network.stages.plain_convolution import PlainConvStage
from partrain.network.stages.pooling import AvgPoolStage, MaxPoolStage
from partrain.network.stages.relu import ReluStage
from partrain.network.stages.residual import ResidualStage
from partrain.network.stages.sequence import StageSequence
from partrain.network.stages.stage import Stage
from partrain.network.stages.tap_lists import is_plain, num_products

# By the layer that begins the stage; a convolution may begin another one (`_stage_of`). A class has `KERNELS`, the
# kernels that it calls (besides those that depend on a convolution or an activation), and `followers`, the kinds of
# layers that become part of the stage if they follow, in this order.
_STAGES: dict[type[Layer], Any] = {
    Conv2d: PlainConvStage,
    MaxPool2d: MaxPoolStage,
    AvgPool2d: AvgPoolStage,
    GlobalAvgPool2d: AvgPoolStage,
    Relu: ReluStage,
    Flatten: FlattenStage,
    Dense: DenseStage,
    Dropout: DropoutStage,
    GroupNorm: GroupNormStage,
    BatchNorm: BatchNormStage,
    LayerNorm: LayerNormStage,
    **dict.fromkeys((LeakyRelu, Gelu, Silu, Tanh, Sigmoid), ActivationStage),
    Residual: ResidualStage,
}


def _stage_of(layer: Layer, following: Layer | None) -> Any:
    """Return the class for a layer: which one computes a convolution depends on what follows it."""
    if isinstance(layer, Conv2d) and layer.has_bias and is_plain(layer):
        by_taps, by_formula = num_products(layer)
        if isinstance(following, ConvStage.followers) or by_taps > _MOST_ZEROS * by_formula:
            return ConvStage
    return _STAGES[type(layer)]


# The gradient at the input multiplies with the zeros around the gradient at the output: with filters as large as the
# image, nearly always. A list of winners goes over the outputs.
_MOST_ZEROS = 2


def _groups(layers: Iterable[Layer]) -> Iterator[tuple[Any, tuple[Layer, ...]]]:
    """Yield the class and the layers of each stage."""
    waiting = list(layers)
    while waiting:
        group = [waiting.pop(0)]
        kind = _stage_of(group[0], waiting[0] if waiting else None)
        for follower in kind.followers:
            if waiting and isinstance(waiting[0], follower):
                group.append(waiting.pop(0))
        yield kind, tuple(group)


def stage_kernels(layers: Iterable[Layer]) -> Iterator[Kernel]:
    """Yield the kernels that the stages of these layers call."""
    for kind, group in _groups(layers):
        yield from kind.KERNELS
        first = group[0]
        if isinstance(first, Conv2d | Activation):
            yield from kind.kernels_of(first)
        elif isinstance(first, Residual):
            yield from (*stage_kernels(first.body), *stage_kernels(first.shortcut))


def make_stages(
    layers: Iterable[Layer], network: Network, views: Views, num: int, shared: GradientBuffers | None
) -> StageSequence:
    """Group layers of a network into stages.

    Parameters
    ----------
    layers : those of the network, or of a branch.
    network : the network's shapes.
    views : views of the parameters, by name.
    num : the largest number of examples in a call.
    shared : the buffers for gradients; None: each stage has its own, where they are read again (`sum_tiles`).
    """
    stages: list[Stage] = []
    for kind, group in _groups(layers):
        first = group[0]
        if isinstance(first, Residual):
            branches = {"body": first.body, "shortcut": first.shortcut}
            body, shortcut = (
                make_stages(branch, network, views, num, shared and shared.of_branch(name))
                for name, branch in branches.items()
            )
            stages.append(ResidualStage(group, body, shortcut, num))
        else:
            stages.append(kind(group, network, views, num))
        if shared is not None and isinstance(stages[-1], SharesGradients):
            stages[-1].share_gradients(shared)
            shared = shared.of_next_stage()
    for stage, following in itertools.pairwise(stages):
        if isinstance(following, ResidualStage):
            following.follow(stage)
    return StageSequence(stages, num, shared)
