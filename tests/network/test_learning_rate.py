"""What is said about a schedule that a user hardly wants."""

from __future__ import annotations

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
