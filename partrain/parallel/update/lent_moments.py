"""The optimizer's moments while workers make steps by themselves: then the newest ones are in shared memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from partrain.kernels.ipc.step_ring import moments_row
from partrain.network.optimizer import ParameterOptimizer

Array = NDArray[Any]


class LentMoments:
    """Lends the optimizer's moments to the workers, and takes them back.

    Shared memory has moments of even and of odd steps, because a step writes its new moments beside the old ones.

    Parameters
    ----------
    optimizer : has the moments.
    arrays : the shared arrays; without those of `array_plan.planned_specs`, nothing is ever lent.
    """

    def __init__(self, optimizer: ParameterOptimizer, arrays: Mapping[str, Array]) -> None:
        self._optimizer, self._arrays = optimizer, arrays
        self._lent_after: int | None = None  # the step; None: `optimizer` has the newest moments

    def lend(self, step: int) -> None:
        """Let workers find the moments after `step`; those of `optimizer` are then out of date."""
        if self._lent_after is None:
            for vector, lent_BU in self._vectors():
                lent_BU[moments_row(step)] = vector
            # Frozen parameters belong to no piece, so no step writes them.
            self._arrays["steps.parameters"][:] = self._optimizer.parameters
        else:
            assert self._lent_after == step
        self._lent_after = step

    def advance(self, step: int) -> None:
        """Take note that workers have changed the lent moments to those after `step`."""
        self._lent_after = step

    def newest(self) -> tuple[Array, Array]:
        """Return the newest first and second moments, wherever they are; valid until the next step."""
        if self._lent_after is None:
            return self._optimizer.first_moment, self._optimizer.second_moment
        (_, first_BU), (_, second_BU) = self._vectors()
        return first_BU[moments_row(self._lent_after)], second_BU[moments_row(self._lent_after)]

    def collect(self) -> None:
        """Copy lent moments back to `optimizer`."""
        if self._lent_after is not None:
            for vector, lent_BU in self._vectors():
                vector[:] = lent_BU[moments_row(self._lent_after)]
            self._lent_after = None

    def _vectors(self) -> list[tuple[Array, Array]]:
        """Return each vector of moments, and both rows of the lent ones, without the numbers that fill a cache line."""
        optimizer, arrays = self._optimizer, self._arrays
        pairs = (
            (optimizer.first_moment, arrays["steps.first_moments"]),
            (optimizer.second_moment, arrays["steps.second_moments"]),
        )
        return [(vector, lent_BU[:, : vector.size]) for vector, lent_BU in pairs]
