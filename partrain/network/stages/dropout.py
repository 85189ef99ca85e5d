"""Dropout."""

from __future__ import annotations

from collections.abc import Mapping

from partrain.kernels.call_list import Call
from partrain.network.execution import Array, DropoutFactors, Factors, Views
from partrain.network.layers import Dropout, Layer
from partrain.network.network import Network
from partrain.network.stages.stage import Gradient


class DropoutStage:
    """Dropout, in place: the stage before it only needs to know where its own output is above 0."""

    KERNELS = DropoutFactors.KERNELS
    followers = ()
    border = (0, 0)

    def __init__(self, layers: tuple[Layer, ...], network: Network, views: Views, num: int) -> None:
        (layer,) = self.layers = layers
        assert isinstance(layer, Dropout)
        self.factors = DropoutFactors(layer, num, "float32")

    def forward(self, x: Array, call: Call) -> Array:
        # Images have channels last; rows after a `flatten` have the order of the factors.
        self.factors.scale(x.reshape(len(x), -1), x.shape[3] if x.ndim == 4 else 1, 1, call)
        return x

    def backward(
        self, dy: Gradient, slots_TK: Array, tile: int, factors: Mapping[str, Factors], needs_dx: bool, call: Call
    ) -> Gradient | None:
        self.factors.scale(*dy, call)
        return dy
