"""What a layer of the plain execution does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from partrain.network.execution import Array, Factors, Views


class LoopsLayer(Protocol):
    """A layer with buffers for a tile."""

    def forward(self, x: Array) -> Array:
        """Return the output (N, …) of the input (N, …); keep what `backward` needs."""

    def backward(self, dy: Array, needs_dx: bool) -> Array | None:
        """Return the gradient at the input if `needs_dx`; keep `dy` for the gradient of the parameters."""


class TrainedLoopsLayer(LoopsLayer, Protocol):
    """A layer with parameters."""

    dy: Array  # the gradient at the output that `backward` was given last

    def write_factors(self, factors: Mapping[str, Factors]) -> None:
        """Write the factors of all examples, for a layer whose gradient is exchanged as factors."""

    def add_sums(self, first: int, last: int, sums: Views) -> None:
        """Add the gradients of the examples `first` … `last`-1, for a layer whose gradient is exchanged as sums."""
