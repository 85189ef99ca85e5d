"""A learning rate that is reduced on a plateau: the values of PyTorch 2.13's ReduceLROnPlateau."""

from __future__ import annotations

import json
import math

import pytest

from partrain.config.schema.schedule import Schedule
from partrain.training.plateau import Plateau

LOSSES = [1.0, 0.9, 0.95, 0.91, 0.8999, 0.5, 0.6, math.nan, 0.55, 0.7, 0.7, 0.7, 0.7, 0.4, 0.39999, 0.6, 0.7]


def plateau(lr: float = 0.1, **options: object) -> Plateau:
    return Plateau(Schedule.model_validate({"name": "plateau", **options}), lr)


def rates(made: Plateau, values: list[float], metric: str = "validation/loss") -> list[float]:
    found = []
    for value in values:
        made.observe({metric: value})
        found.append(made.lr)
    return found


def by_the_definition(values: list[float], lr: float, factor: float, patience: int, threshold: float, cooldown: int,
                      min_lr: float) -> list[float]:  # fmt: skip
    """Return the rates of ReduceLROnPlateau for a metric that should fall, after its documentation."""
    best, num_bad, num_cooling, found = math.inf, 0, 0, []
    for value in values:
        if value < best * (1 - threshold):
            best, num_bad = value, 0
        else:
            num_bad += 1
        if num_cooling > 0:
            num_cooling, num_bad = num_cooling - 1, 0
        if num_bad > patience:
            if lr - max(lr * factor, min_lr) > 1e-8:
                lr = max(lr * factor, min_lr)
            num_cooling, num_bad = cooldown, 0
        found.append(lr)
    return found


@pytest.mark.parametrize("factor", [0.1, 0.5])
@pytest.mark.parametrize("patience", [0, 1, 3])
@pytest.mark.parametrize("threshold", [0.0, 1e-4, 0.2])
@pytest.mark.parametrize("cooldown", [0, 2])
@pytest.mark.parametrize("min_lr", [0.0, 0.03])
def test_rates_are_those_of_the_definition(
    factor: float, patience: int, threshold: float, cooldown: int, min_lr: float
) -> None:
    options = {"factor": factor, "patience": patience, "threshold": threshold, "cooldown": cooldown, "min_lr": min_lr}
    assert rates(plateau(**options), LOSSES) == by_the_definition(LOSSES, 0.1, **options)  # type: ignore[arg-type]


def test_accuracy_must_rise() -> None:
    made = plateau(metric="validation/accuracy", patience=1, threshold=0.01)
    assert rates(made, [0.5, 0.6, 0.605, 0.59, 0.9], "validation/accuracy") == [0.1, 0.1, 0.1, 0.1 * 0.1, 0.1 * 0.1]


def test_reduction_says_why() -> None:
    made = plateau(patience=1)
    assert [made.observe({"validation/loss": loss}) for loss in (1.0, 2.0)] == [None, None]
    assert made.observe({"validation/loss": 2.0}) == "validation/loss did not improve in 2 evaluations"


@pytest.mark.parametrize("stop", [1, 4, 7, 12])
def test_state_continues_where_it_was_saved(stop: int) -> None:
    options = {"patience": 1, "cooldown": 1, "factor": 0.7}
    expected = rates(plateau(**options), LOSSES)
    first, second = plateau(**options), plateau(**options)
    rates(first, LOSSES[:stop])
    second.restore(json.loads(json.dumps(first.state)))
    assert rates(second, LOSSES[stop:]) == expected[stop:]
