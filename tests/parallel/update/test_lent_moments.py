"""Shapes: U parameters."""

from __future__ import annotations

import numpy as np
import pytest

from partrain.config.schema.optimizer import Optimizer
from partrain.network.optimizer import ParameterOptimizer
from partrain.parallel.update.lent_moments import LentMoments
from tests.optimizers import optimizer_of

U = 3


class Lent:
    """An optimizer, and the shared arrays that its moments are lent to."""

    def __init__(self, name: str = "adam") -> None:
        self.optimizer: ParameterOptimizer = optimizer_of(np.arange(U, dtype=np.float32), Optimizer(name=name))  # type: ignore[arg-type]
        self.optimizer.first_moment[:] = 1
        self.optimizer.second_moment[:] = 2
        self.arrays = {
            "steps.parameters": np.zeros(U, np.float32),
            "steps.first_moments": np.zeros((2, self.optimizer.first_moment.size), np.float32),
            "steps.second_moments": np.zeros((2, self.optimizer.second_moment.size), np.float32),
        }
        self.moments = LentMoments(self.optimizer, self.arrays)

    def write(self, step: int, value: float) -> None:
        """Write the moments of a step, as workers do."""
        self.arrays["steps.first_moments"][step % 2] = value
        self.arrays["steps.second_moments"][step % 2] = 2 * value

    @property
    def newest(self) -> list[list[float]]:
        return [vector.tolist() for vector in self.moments.newest()]


@pytest.mark.parametrize("step", [0, 7])
def test_lent_moments_are_those_of_the_step_and_frozen_parameters_are_with_the_new_ones(step: int) -> None:
    lent = Lent()
    lent.moments.lend(step)
    assert lent.arrays["steps.first_moments"][step % 2].tolist() == [1] * U
    assert lent.arrays["steps.second_moments"][step % 2].tolist() == [2] * U
    assert lent.arrays["steps.parameters"].tolist() == [0, 1, 2]


def test_newest_moments_are_those_of_the_last_complete_step_and_return_to_the_optimizer() -> None:
    lent = Lent()
    assert lent.newest == [[1] * U, [2] * U]
    lent.moments.lend(4)
    for step in (5, 6, 7):
        lent.write(step, step)
    lent.moments.advance(6)  # step 7 was not completed
    assert lent.newest == [[6] * U, [12] * U]
    lent.moments.collect()
    assert lent.newest == [[6] * U, [12] * U]
    assert lent.optimizer.first_moment.tolist() == [6] * U


def test_a_series_after_another_one_takes_the_moments_from_shared_memory() -> None:
    lent = Lent()
    lent.moments.lend(0)
    lent.write(1, 5)
    lent.moments.advance(1)
    lent.moments.lend(1)
    assert lent.newest == [[5] * U, [10] * U]
    with pytest.raises(AssertionError):
        lent.moments.lend(2)


def test_collected_moments_are_lent_anew() -> None:
    lent = Lent()
    lent.moments.lend(0)
    lent.moments.collect()
    lent.optimizer.first_moment[:] = 9  # a step of the coordinator
    lent.moments.lend(1)
    assert lent.newest == [[9] * U, [2] * U]


def test_an_optimizer_without_second_moments_lends_the_first_ones() -> None:
    lent = Lent("sgd")
    lent.moments.lend(0)
    lent.write(1, 5)
    lent.moments.advance(1)
    assert lent.newest[1] == []


def test_numbers_that_fill_a_cache_line_are_no_moments() -> None:
    lent = Lent()
    lent.arrays |= {
        name: np.full((2, 16), np.nan, np.float32) for name in ("steps.first_moments", "steps.second_moments")
    }
    lent.moments = LentMoments(lent.optimizer, lent.arrays)
    lent.moments.lend(0)
    assert lent.newest == [[1] * U, [2] * U]
    lent.moments.collect()
    assert lent.optimizer.second_moment.tolist() == [2] * U
