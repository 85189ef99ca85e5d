"""Adam's moments while workers make steps by themselves: then the newest ones are in shared memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from partrain.kernels.ipc.step_ring import moments_row
from partrain.network.adam import Adam

Array = NDArray[Any]


class LentMoments:
    """Lends Adam's moments to the workers, and takes them back.

    Shared memory has moments of even and of odd steps, because a step writes its new moments beside the old ones.

    Parameters
    ----------
    adam : has the moments.
    arrays : the shared arrays; without those of `array_plan.planned_specs`, nothing is ever lent.
    """

    def __init__(self, adam: Adam, arrays: Mapping[str, Array]) -> None:
        self._adam, self._arrays = adam, arrays
        self._lent_after: int | None = None  # the step; None: `adam` has the newest moments

    def lend(self, step: int) -> None:
        """Let workers find the moments after `step`; those of `adam` are then out of date."""
        if self._lent_after is None:
            for vector, lent_BU in self._vectors():
                lent_BU[moments_row(step)] = vector
        else:
            assert self._lent_after == step
        self._lent_after = step

    def advance(self, step: int) -> None:
        """Take note that workers have changed the lent moments to those after `step`."""
        self._lent_after = step

    def newest(self) -> tuple[Array, Array]:
        """Return the newest first and second moments, wherever they are; valid until the next step."""
        if self._lent_after is None:
            return self._adam.first_moment, self._adam.second_moment
        (_, first_BU), (_, second_BU) = self._vectors()
        return first_BU[moments_row(self._lent_after)], second_BU[moments_row(self._lent_after)]

    def collect(self) -> None:
        """Copy lent moments back to `adam`."""
        if self._lent_after is not None:
            for vector, lent_BU in self._vectors():
                vector[:] = lent_BU[moments_row(self._lent_after)]
            self._lent_after = None

    def _vectors(self) -> list[tuple[Array, Array]]:
        adam, arrays = self._adam, self._arrays
        return [
            (adam.first_moment, arrays["steps.first_moments"]),
            (adam.second_moment, arrays["steps.second_moments"]),
        ]
