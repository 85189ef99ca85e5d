"""Early stopping: ends a training run after `patience` evaluations in a row in which a metric did not improve.

Every checkpoint contains the state, so a resumed run stops at the same step as an uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from partrain.config.schema.training import StopEarly


class EarlyStopping:
    """Follows a metric over the evaluations.

    Parameters
    ----------
    settings : the metric, the patience and the smallest improvement that counts.
    state : the `state` after an earlier evaluation; None before the first.
    """

    def __init__(self, settings: StopEarly, state: Mapping[str, Any] | None = None) -> None:
        self._settings = settings
        self._best: float | None = None if state is None else state["best"]
        self._best_step: int | None = None if state is None else state["best_step"]
        self._num_worse: int = 0 if state is None else state["evaluations_without_improvement"]

    @property
    def state(self) -> dict[str, Any]:
        """The state after the evaluations so far, as JSON."""
        return {
            "best": self._best,
            "best_step": self._best_step,
            "evaluations_without_improvement": self._num_worse,
        }

    def observe(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record the evaluation after `step`. A value that is not finite does not count as an improvement."""
        value = metrics[self._settings.metric]
        if math.isfinite(value) and (self._best is None or self._gain(value, self._best) > self._settings.min_delta):
            self._best, self._best_step, self._num_worse = value, step, 0
        else:
            self._num_worse += 1

    def _gain(self, value: float, best: float) -> float:
        return best - value if self._settings.metric == "validation/loss" else value - best

    @property
    def reason(self) -> str | None:
        """The reason to stop the training; None while it should continue."""
        if self._num_worse < self._settings.patience:
            return None
        evaluations = "1 evaluation" if self._num_worse == 1 else f"{self._num_worse} evaluations"
        since = (
            "it was never finite"
            if self._best is None
            else f"its best value, {self._best:.4g}, was at step {self._best_step:,}"
        )
        return f"{self._settings.metric} did not improve in {evaluations}; {since}"
