"""Buffers for the gradients between stages, which stages of equal shapes share."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol, runtime_checkable

from partrain.kernels.call_list import address_of
from partrain.network.execution import Array


class GradientBuffers:
    """Gives each buffer to many stages, so that it stays in the cache: a new one for each stage costs memory traffic.

    A stage writes the gradient at its input, the stage before reads it, and nobody else. So two buffers of a shape are
    enough, for every other stage of those that have such buffers; the stages between them hand on what they are given.
    A branch of a residual layer has its own, because the layer reads its gradient, and the result of its other branch,
    meanwhile.

    Parameters
    ----------
    path : the branches that the stage is in.
    is_odd : whether the stage has an odd number among those that share buffers.
    buffers : those that have been given out.

    Attributes
    ----------
    scratch : addresses of these buffers and of those of `add_own`: no other pass reads them.
    """

    def __init__(
        self,
        path: tuple[str, ...] = (),
        *,
        is_odd: bool = False,
        buffers: dict[Hashable, Array] | None = None,
        scratch: set[int] | None = None,
    ) -> None:
        self._path, self._is_odd = path, is_odd
        self._buffers: dict[Hashable, Array] = {} if buffers is None else buffers
        self.scratch: set[int] = set() if scratch is None else scratch

    def of_branch(self, name: str) -> GradientBuffers:
        """Return the buffers for the stages of a branch."""
        return GradientBuffers((*self._path, name), buffers=self._buffers, scratch=self.scratch)

    def of_next_stage(self) -> GradientBuffers:
        """Return the buffers for the next stage that shares its own."""
        return GradientBuffers(self._path, is_odd=not self._is_odd, buffers=self._buffers, scratch=self.scratch)

    def take(self, role: Hashable, buffer: Array) -> Array:
        """Return the buffer of a role and this one's shape: this one for the first stage that asks."""
        shared = self._buffers.setdefault((self._path, self._is_odd, role, buffer.shape), buffer)
        self.add_own(shared)
        return shared

    def add_own(self, buffer: Array) -> None:
        """Add a buffer that no other stage uses."""
        if buffer.size:
            self.scratch.add(address_of(buffer))


@runtime_checkable
class SharesGradients(Protocol):
    """A stage whose buffers for gradients other ones may use."""

    def share_gradients(self, buffers: GradientBuffers) -> None:
        """Take the buffers for gradients from `buffers`, before the first pass."""
