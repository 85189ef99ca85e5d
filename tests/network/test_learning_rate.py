"""Schedules against their formulas, and what is said about one that a user hardly wants."""

from __future__ import annotations

import math

import pytest

from partrain.config.schema.optimizer import Optimizer
from partrain.config.schema.schedule import Schedule
from partrain.network.learning_rate import learning_rate, schedule_problem

OPTIMIZER = Optimizer(lr=0.004)


@pytest.mark.parametrize("name", ["constant", "cosine", "step"])
def test_warm_up_longer_than_the_training_is_a_problem(name: str) -> None:
    schedule = Schedule(name=name, warmup_steps=200, decay_steps=300)
    problem = schedule_problem(OPTIMIZER, schedule, 150)
    assert problem is not None
    assert "the warm-up of 200 steps is longer than the training of 150 steps" in problem
    assert "only reaches 0.003, not 0.004" in problem
    assert learning_rate(150, OPTIMIZER, schedule) == pytest.approx(0.003)
    assert schedule_problem(OPTIMIZER, schedule, 200) is None


@pytest.mark.parametrize("decay_steps", [1, 199, 200])
def test_cosine_that_ends_within_the_warm_up_is_a_problem(decay_steps: int) -> None:
    schedule = Schedule(name="cosine", warmup_steps=200, decay_steps=decay_steps, final_lr=1e-30)
    problem = schedule_problem(OPTIMIZER, schedule, 1000)
    assert problem is not None
    assert f"the cosine would end at step {decay_steps}, but the warm-up takes 200 steps" in problem
    assert "final_lr, 1e-30, at once" in problem
    assert learning_rate(201, OPTIMIZER, schedule) == 1e-30


def test_usual_schedules_are_no_problem() -> None:
    assert schedule_problem(OPTIMIZER, Schedule(), 10) is None
    assert schedule_problem(OPTIMIZER, Schedule(name="cosine", warmup_steps=200, decay_steps=201), 1000) is None
    assert schedule_problem(OPTIMIZER, Schedule(name="cosine", decay_steps=3000), 1000) is None
    assert schedule_problem(OPTIMIZER, Schedule(name="step", warmup_steps=200, decay_steps=100), 1000) is None


def rates(schedule: Schedule, num_steps: int, lr: float = 0.004) -> list[float]:
    return [learning_rate(step, Optimizer(lr=lr), schedule) for step in range(1, num_steps + 1)]


@pytest.mark.parametrize("total", [1, 2, 7, 50])
@pytest.mark.parametrize("pct_start", [0.0, 0.25, 0.3, 1.0])
def test_one_cycle_has_the_rates_of_its_definition(total: int, pct_start: float) -> None:
    schedule = Schedule(name="one_cycle", decay_steps=total, pct_start=pct_start, div_factor=20, final_div_factor=100)
    highest, first, last = 0.004, 0.004 / 20, 0.004 / 2000

    def annealed(start: float, end: float, share: float) -> float:
        return end + (start - end) / 2 * (math.cos(math.pi * share) + 1)

    expected, rise = [], pct_start * total - 1
    for place in range(total):
        if place <= rise:
            expected.append(annealed(first, highest, place / rise if rise else 1))
        else:
            expected.append(annealed(highest, last, (place - rise) / (total - 1 - rise)))
    assert rates(schedule, total) == pytest.approx(expected, rel=1e-12)
    assert rates(schedule, total + 3)[total:] == pytest.approx([last] * 3, rel=1e-12)


def test_linear_falls_in_equal_steps_after_the_warm_up() -> None:
    schedule = Schedule(name="linear", warmup_steps=2, decay_steps=6, final_lr=0.002)
    expected = [0.002, 0.004, 0.004, 0.0035, 0.003, 0.0025, 0.002, 0.002]
    assert rates(schedule, 8) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_warm_restarts_begin_each_period_with_the_highest_rate(factor: int) -> None:
    schedule = Schedule(name="warm_restarts", warmup_steps=3, period_steps=5, period_factor=factor, final_lr=0.001)
    expected, period = [0.004 * k / 3 for k in (1, 2, 3)], 5
    while len(expected) < 60:
        expected += [0.001 + 0.003 * (1 + math.cos(math.pi * k / period)) / 2 for k in range(period)]
        period *= factor
    assert rates(schedule, 60) == pytest.approx(expected[:60], rel=1e-12)


def test_plateau_keeps_the_rate_until_it_is_reduced() -> None:
    schedule = Schedule(name="plateau", warmup_steps=2)
    assert rates(schedule, 4) == [0.002, 0.004, 0.004, 0.004]
    assert [learning_rate(step, OPTIMIZER, schedule, 0.001) for step in (1, 2, 3)] == [0.0005, 0.001, 0.001]


@pytest.mark.parametrize(
    ("schedule", "problem"),
    [
        (Schedule(name="linear", warmup_steps=50, decay_steps=40), "the line would end at step 40"),
        (Schedule(name="one_cycle", decay_steps=1000, pct_start=0.5), "rises until step 500, but the training ends at"),
        (Schedule(name="one_cycle", decay_steps=90), "the cycle ends at step 90; up to step 100"),
        (Schedule(name="warm_restarts", period_steps=100), "the first period ends at step 100"),
        (Schedule(name="plateau", patience=5), "with 6 evaluations, the learning rate is never reduced"),
    ],
)
def test_schedule_that_does_not_fit_the_training_is_a_problem(schedule: Schedule, problem: str) -> None:
    assert problem in str(schedule_problem(OPTIMIZER, schedule, 100, 6))
    assert schedule_problem(OPTIMIZER, Schedule(name="plateau", patience=4), 100, 6) is None
    assert schedule_problem(OPTIMIZER, Schedule(name="one_cycle", decay_steps=100), 100, 6) is None
