"""Layers one after the other, as in a network and in the branches of a residual layer."""

from __future__ import annotations

from collections.abc import Sequence

from partrain.network.execution import Array
from partrain.network.layers import Layer, is_trained
from partrain.network.loop_layers.layer import LoopsLayer


class LoopsSequence:
    """Computes layers in order.

    Parameters
    ----------
    layers : their descriptions.
    computed : for each, what computes it.
    """

    def __init__(self, layers: Sequence[Layer], computed: Sequence[LoopsLayer]) -> None:
        self._layers = tuple(computed)
        # No gradient is needed at the input of the first layer with parameters, nor before it, unless the caller needs
        # that of the sequence.
        trained = [k for k, layer in enumerate(layers) if is_trained(layer)]
        self._first_trained = trained[0] if trained else len(layers)

    def forward(self, x: Array) -> Array:
        """Return the output of the last layer; the first one may write to `x`."""
        for layer in self._layers:
            x = layer.forward(x)
        return x

    def backward(self, dy: Array, needs_dx: bool) -> Array | None:
        """Return the gradient at the input if `needs_dx`; the last layer may write to `dy`."""
        dx: Array | None = dy
        for k in range(len(self._layers) - 1, -1 if needs_dx else self._first_trained - 1, -1):
            assert dx is not None
            dx = self._layers[k].backward(dx, needs_dx or k > self._first_trained)
        return dx if needs_dx else None
