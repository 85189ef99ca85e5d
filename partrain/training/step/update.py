"""Parameter updates from the gradient of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from partrain.parallel.update.parameter_update import NotFinite, ParameterUpdate
from partrain.training.step.gradient import BatchGradient
from partrain.training.step.phase_timer import NOISE, UPDATE, PhaseTimer

Array = NDArray[Any]

# Takes the sum of a batch's gradients (K,) and the step; returns a new sum, and does not change its argument.
SumTransform = Callable[[Array, int], Array]


class ModelUpdate(Protocol):
    """Updates the parameters with the gradient of a batch."""

    def apply(self, batch: BatchGradient, step: int, timer: PhaseTimer | None = None) -> NotFinite | None:
        """Make the update of `step`, counted from 1.

        Returns
        -------
        None, or the value that is not finite. If it is a gradient, parameters and moments are unchanged.
        """


class FusedUpdate:
    """Reduces the tiles of a batch and updates the parameters in one pass, piece by piece."""

    def __init__(self, update: ParameterUpdate) -> None:
        self._update = update

    def apply(self, batch: BatchGradient, step: int, timer: PhaseTimer | None = None) -> NotFinite | None:
        """See `ModelUpdate`."""
        not_finite = self._update.apply(len(batch.indices_N), step)
        if timer is not None:
            timer.end(UPDATE)
        return not_finite


class UpdateFromSum:
    """Transforms the sum of a batch's gradients, divides it by a fixed number, and updates the parameters.

    Parameters
    ----------
    update : updates the parameters.
    divisor : the number that divides the sum: the (expected) number of examples.
    transforms : applied to the sum, in order.
    """

    def __init__(self, update: ParameterUpdate, divisor: int, transforms: Sequence[SumTransform] = ()) -> None:
        self._update, self._divisor, self._transforms = update, divisor, transforms

    def apply(self, batch: BatchGradient, step: int, timer: PhaseTimer | None = None) -> NotFinite | None:
        """See `ModelUpdate`."""
        total = batch.sum()
        for transform in self._transforms:
            total = transform(total, step)
        if timer is not None:
            timer.end(NOISE)
        not_finite = self._update.apply_sum(total, self._divisor, step)
        if timer is not None:
            timer.end(UPDATE)
        return not_finite
