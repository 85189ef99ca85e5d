from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from partrain.config.reader import parse_config
from partrain.config.schema.config import Config
from partrain.parallel.split_evaluation import Evaluation
from partrain.training.logging_schedule import LoggedSession, LoggingSchedule
from partrain.training.validation import Validation


def config_with(**logging: int | None) -> Config:
    mapping: dict[str, Any] = {
        "data": {"name": "synthetic-digits"},
        "network": ["flatten", {"dense": {"units": 10}}],
        "logging": {"evaluate_every_epochs": None, **logging},
    }
    return parse_config(mapping, source="test")


def validation_of(config: Config, evaluate: Callable[[], Evaluation] | None, *, last_step: int = 100) -> Validation:
    """Return the validation of a run with 5 steps per epoch."""
    schedule = LoggingSchedule(5, [LoggedSession.of(0, last_step, config)])
    return Validation(config.training.stop_early, schedule, evaluate)


def evaluation_of(accuracy: float) -> Evaluation:
    labels_N = np.zeros(10, np.int64)
    predictions_N = (np.arange(10) >= round(10 * accuracy)).astype(np.int64)
    return Evaluation(labels_N, predictions_N, np.full(10, 0.5), np.full(10, 0.9))


def accuracies(*values: float) -> Iterator[Evaluation]:
    return map(evaluation_of, values)


def test_evaluation_is_due_at_its_steps_its_epochs_and_the_last_step() -> None:
    evaluate = accuracies(*[0.5] * 20).__next__
    validation = validation_of(config_with(evaluate_every_steps=4, evaluate_every_epochs=2), evaluate, last_step=13)
    evaluated = [step for step in range(1, 14) if validation.run(step) is not None]
    assert evaluated == [4, 8, 10, 12, 13]


def test_best_is_the_highest_accuracy_and_the_earliest_of_equal_ones() -> None:
    validation = validation_of(config_with(evaluate_every_steps=1), accuracies(0.4, 0.7, 0.7, 0.6).__next__)
    for step in range(1, 5):
        validation.run(step)
    assert validation.best is not None
    assert (validation.best["step"], validation.best["validation/accuracy"]) == (2, 0.7)


def test_nothing_is_evaluated_without_examples() -> None:
    validation = validation_of(config_with(evaluate_every_steps=1), None, last_step=1)
    assert validation.run(1) is None
    assert validation.best is None


@pytest.mark.parametrize("restored_after", [0, 1, 2])
def test_early_stopping_counts_due_evaluations_across_a_resume(restored_after: int) -> None:
    mapping = config_with(evaluate_every_steps=1).to_mapping()
    mapping["training"]["stop_early"] = {"metric": "validation/accuracy", "patience": 2, "min_delta": 0.0}
    config = parse_config(mapping, source="test")
    evaluate = accuracies(0.5, 0.5, 0.5).__next__
    validation = validation_of(config, evaluate)
    for step in range(1, 4):
        assert validation.stop_reason is None
        validation.run(step)
        if step == restored_after:
            successor = validation_of(config, evaluate)
            successor.restore(validation.best, validation.early_stopping_state)
            validation = successor
    assert validation.stop_reason is not None


def test_last_evaluation_that_is_not_due_does_not_count_for_early_stopping() -> None:
    mapping = config_with(evaluate_every_steps=2).to_mapping()
    mapping["training"]["stop_early"] = {"metric": "validation/accuracy", "patience": 1, "min_delta": 0.0}
    validation = validation_of(parse_config(mapping, source="test"), accuracies(0.5, 0.4).__next__, last_step=3)
    validation.run(2)
    assert validation.run(3) is not None
    assert validation.stop_reason is None
