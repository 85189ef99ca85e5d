"""A learning rate that is reduced when a validation metric no longer improves.

Every checkpoint contains the state, so a resumed run has the rates of an uninterrupted one.

Source: PyTorch's ReduceLROnPlateau, with a relative threshold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from partrain.config.schema.schedule import Schedule

# A smaller reduction is not made, as in PyTorch.
LEAST_REDUCTION = 1e-8


class Plateau:
    """Follows a metric over the evaluations.

    Parameters
    ----------
    schedule : the settings.
    lr : the learning rate at the beginning.

    Attributes
    ----------
    lr : the learning rate after the evaluations so far.
    """

    def __init__(self, schedule: Schedule, lr: float) -> None:
        self._schedule, self.lr = schedule, lr
        self._best: float | None = None
        self._num_worse = self._num_cooling = 0

    @property
    def state(self) -> dict[str, Any]:
        """The state after the evaluations so far, as JSON."""
        return {
            "lr": self.lr,
            "best": self._best,
            "evaluations_without_improvement": self._num_worse,
            "cooldown": self._num_cooling,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the `state` after an earlier evaluation."""
        self.lr, self._best = state["lr"], state["best"]
        self._num_worse, self._num_cooling = state["evaluations_without_improvement"], state["cooldown"]

    def observe(self, metrics: Mapping[str, float]) -> str | None:
        """Record an evaluation; return why the rate is reduced, or None.

        A value that is not finite is no improvement.
        """
        schedule = self._schedule
        value = metrics[schedule.metric]
        if self._is_better(value):
            self._best, self._num_worse = value, 0
        else:
            self._num_worse += 1
        if self._num_cooling:
            self._num_cooling -= 1
            self._num_worse = 0
        if self._num_worse <= schedule.patience:
            return None
        num_worse, self._num_worse, self._num_cooling = self._num_worse, 0, schedule.cooldown
        lr = max(self.lr * schedule.factor, schedule.min_lr)
        if self.lr - lr <= LEAST_REDUCTION:
            return None
        self.lr = lr
        return f"{schedule.metric} did not improve in {num_worse} evaluation{'s' * (num_worse > 1)}"

    def _is_better(self, value: float) -> bool:
        if self._best is None:
            return abs(value) < float("inf")
        if self._schedule.metric == "validation/loss":
            return value < self._best * (1 - self._schedule.threshold)
        return value > self._best * (1 + self._schedule.threshold)
