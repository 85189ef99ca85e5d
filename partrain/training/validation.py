"""Validation during training: when it is due, the best result so far, and early stopping."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from partrain.config.schema.training import StopEarly
from partrain.parallel.split_evaluation import Evaluation
from partrain.system.terminal_text import loss_text
from partrain.training.early_stopping import EarlyStopping
from partrain.training.logging_schedule import LoggingSchedule

Metrics = dict[str, float]


def describe_validation(metrics: Metrics) -> str:
    """Return an evaluation as a line says it."""
    line = f"validation accuracy {metrics['validation/accuracy']:.2%}, loss {loss_text(metrics['validation/loss'])}"
    if "validation/ema_accuracy" not in metrics:
        return line
    return f"{line}; averaged weights {metrics['validation/ema_accuracy']:.2%}"


class Validation:
    """Evaluates the validation split.

    Parameters
    ----------
    stop_early : when to stop early; None: never.
    schedule : says after which steps to evaluate.
    evaluate : evaluates the split; None if it has no examples.
    evaluate_average : returns the metrics of the averaged weights; none if there is no average.

    Attributes
    ----------
    best : metrics and step of the highest accuracy so far, the earliest if several are equal; None before the first
        evaluation.
    """

    def __init__(
        self,
        stop_early: StopEarly | None,
        schedule: LoggingSchedule,
        evaluate: Callable[[], Evaluation] | None,
        evaluate_average: Callable[[], Metrics] = dict,
    ) -> None:
        self._stop_early, self._schedule = stop_early, schedule
        self._evaluate, self._evaluate_average = evaluate, evaluate_average
        self._early_stopping = EarlyStopping(self._stop_early) if self._stop_early else None
        self.best: Metrics | None = None

    @property
    def stop_reason(self) -> str | None:
        """The reason to stop early; None while training should continue."""
        return None if self._early_stopping is None else self._early_stopping.reason

    @property
    def early_stopping_state(self) -> dict[str, Any] | None:
        """The state of early stopping, as saved in checkpoints; None if the configuration has no early stopping."""
        return None if self._early_stopping is None else self._early_stopping.state

    def restore(self, best: Metrics | None, early_stopping_state: Mapping[str, Any] | None) -> None:
        """Continue from the state in a checkpoint."""
        self.best = best
        if self._stop_early:
            self._early_stopping = EarlyStopping(self._stop_early, early_stopping_state)

    def run(self, step: int) -> Metrics | None:
        """Evaluate after `step` if an evaluation is due or this is the last step; update `best`.

        Early stopping counts only the evaluations that are due, because a longer run does not evaluate at the last
        step of a shorter one.

        Returns
        -------
        The metrics; None if nothing was evaluated.
        """
        is_due = self._schedule.is_evaluation_due(step)
        if self._evaluate is None or not (is_due or self._schedule.is_last(step)):
            return None
        evaluated = self._evaluate().metrics() | self._evaluate_average()
        metrics = {f"validation/{name}": value for name, value in evaluated.items()}
        if self.best is None or metrics["validation/accuracy"] > self.best["validation/accuracy"]:
            self.best = {"step": step, **metrics}
        if self._early_stopping and is_due:
            self._early_stopping.observe(step, metrics)
        return metrics
