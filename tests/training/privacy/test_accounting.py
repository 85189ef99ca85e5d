"""Epsilon against the exact value, which the characteristic function of the privacy loss gives without any grid."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from partrain.training.privacy.accounting import Accountant, least_noise

SMALL_RATE = 32 / 50_000  # mnist.yaml


class ExactDelta:
    """Computes delta as a function of epsilon, for any number of steps whose total loss is spread smoothly.

    delta = P(L > epsilon) - e^epsilon Q(L > epsilon): L is the sum of the losses of all steps, P the distribution with
    the example and Q the one without. Both probabilities come from the characteristic functions of a step's loss, by
    the inversion formula of Gil-Pelaez (Zhu, Dong, Wang, "Optimal accounting of differential privacy via
    characteristic function", arXiv 2106.08567).
    """

    def __init__(self, rate: float, noise: float, num_steps: int) -> None:
        x = np.linspace(-12 * noise, 1 + 12 * noise, 6001)
        without = np.exp(-(x**2) / (2 * noise**2))
        with_it = (1 - rate) * without / without.sum()
        without /= without.sum()
        shifted = np.exp(-((x - 1) ** 2) / (2 * noise**2))
        with_it += rate * shifted / shifted.sum()
        loss = np.log1p(rate * np.expm1((2 * x - 1) / (2 * noise**2)))
        middle = num_steps * float(np.dot(with_it, loss))
        deviation = math.sqrt(num_steps * float(np.dot(with_it, loss**2)))
        width = 80 * deviation + 8 * float(loss.max()) + 2 * abs(middle)
        self._k = np.arange(1024) + 0.5
        self._t = 2 * np.pi / width * self._k
        waves = np.exp(1j * np.outer(self._t, loss))
        self._with, self._without = ((waves @ weights) ** num_steps for weights in (with_it, without))
        assert abs(self._with[-1]) < 1e-12, "the loss is not spread smoothly enough"

    def _probability_above(self, transform: NDArray[Any], epsilon: float) -> float:
        return 0.5 + float(np.sum((transform * np.exp(-1j * self._t * epsilon)).imag / self._k)) / math.pi

    def epsilon(self, delta: float) -> float:
        """Return the epsilon of this delta."""
        low, high = 0.0, 20.0
        while high - low > 1e-9:
            middle = (low + high) / 2
            exceeds = self._probability_above(self._with, middle) > delta + math.exp(middle) * self._probability_above(
                self._without, middle
            )
            low, high = (middle, high) if exceeds else (low, middle)
        return low


def exact_epsilon_of_whole_batches(noise: float, num_steps: int, delta: float) -> float:
    """Return epsilon for batches of all examples (Balle, Wang, arXiv 1805.06530, theorem 8)."""
    from scipy.special import log_ndtr

    mu = math.sqrt(num_steps) / noise
    low, high = 0.0, 1e4
    while high - low > 1e-9 * high:
        epsilon = (low + high) / 2
        upper = log_ndtr(mu / 2 - epsilon / mu)
        lower = epsilon + log_ndtr(-mu / 2 - epsilon / mu)
        low, high = (epsilon, high) if math.exp(upper) - math.exp(lower) > delta else (low, epsilon)
    return low


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rate", "noise", "num_steps", "delta"),
    [
        (SMALL_RATE, 1.9, 15_630, 1e-5),
        (SMALL_RATE, 0.45, 15_630, 1e-5),
        (SMALL_RATE, 20.0, 15_630, 1e-5),
        (SMALL_RATE, 1.9, 15_630, 1e-7),
        (256 / 60_000, 1.1, 3_000, 1e-5),
        (0.005, 0.79, 3_920, 1e-5),
        (0.005, 1.9, 100, 1e-5),
        (0.1, 5.0, 1_000, 1e-5),
        (1e-4, 100.0, 30_000, 1e-6),
    ],
)
def test_epsilon_is_at_most_half_a_percent_above_the_exact_one_and_never_below(
    rate: float, noise: float, num_steps: int, delta: float
) -> None:
    exact = ExactDelta(rate, noise, num_steps).epsilon(delta)
    assert exact * (1 - 1e-5) < Accountant(rate, noise, delta).epsilon(num_steps) < 1.005 * exact


@pytest.mark.parametrize("num_steps", [1_563, 5_000])
def test_grid_is_fine_enough_for_every_epoch(num_steps: int) -> None:
    exact = ExactDelta(SMALL_RATE, 1.9, num_steps).epsilon(1e-5)
    assert exact * (1 - 1e-5) < Accountant(SMALL_RATE, 1.9, 1e-5).epsilon(num_steps) < 1.005 * exact


@pytest.mark.parametrize(
    ("noise", "num_steps", "delta"), [(5.0, 3_000, 1e-5), (5.0, 3_000, 1e-12), (50.0, 30_000, 1e-16)]
)
def test_epsilon_is_never_below_the_exact_one_where_rounding_errors_are_as_large_as_delta(
    noise: float, num_steps: int, delta: float
) -> None:
    exact = exact_epsilon_of_whole_batches(noise, num_steps, delta)
    epsilon = Accountant(1.0, noise, delta).epsilon(num_steps)
    assert exact <= epsilon < (1.005 if delta == 1e-5 else 1.5) * exact


def test_least_noise_is_within_half_a_percent_of_the_least_that_suffices() -> None:
    noise = least_noise(SMALL_RATE, 15_630, 1e-5, 0.1446)
    assert 1.89 < noise < 1.91
    assert ExactDelta(SMALL_RATE, noise, 15_630).epsilon(1e-5) <= 0.1446


@pytest.mark.parametrize(("rate", "num_steps", "target"), [(0.01, 200, 0.5), (0.1, 70, 5.0), (1.0, 3, 1.0)])
def test_least_noise_keeps_epsilon_within_the_target_and_hardly_less_does_not(
    rate: float, num_steps: int, target: float
) -> None:
    noise = least_noise(rate, num_steps, 1e-5, target)
    assert Accountant(rate, noise, 1e-5).epsilon(num_steps) <= target
    assert Accountant(rate, noise - 2e-4, 1e-5).epsilon(num_steps) > target


def test_epsilon_never_falls_from_step_to_step() -> None:
    accountant = Accountant(SMALL_RATE, 1.9, 1e-5)
    epsilons = [accountant.epsilon(step) for step in range(0, 16_000, 1_000)]
    assert epsilons == sorted(epsilons)
