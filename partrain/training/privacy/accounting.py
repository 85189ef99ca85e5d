"""Privacy accounting: epsilon, which bounds what training with noise reveals about a single example.

A step includes each example in its batch with a small probability, and adds Gaussian noise to the sum of the clipped
gradients. Google's dp-accounting computes epsilon for any number of such steps from the distribution of the privacy
loss, with all roundings towards a larger epsilon. Neighbouring data sets differ by adding or removing one example.

Sources: Dwork, Roth, "The algorithmic foundations of differential privacy", 2014; Koskela, Jälkö, Honkela, "Computing
tight differential privacy guarantees using FFT", arXiv 1906.03049; Doroshenko et al., "Connect the dots: tighter
discrete approximations of privacy loss distributions", arXiv 2207.04380.
"""

from __future__ import annotations

import functools
import math
from typing import Any

from partrain.errors import ConfigError

# The grid of privacy losses. A finer grid gives a tighter epsilon, but takes longer. With much noise, the losses of a
# step are small and need a fine grid. At a noise multiplier of 1, the coarse grid makes epsilon 0.2 % larger.
FINE, COARSE, COARSEST = 1e-4, 1e-3, 1e-2
MUCH_NOISE, LITTLE_NOISE = 2.0, 0.5
# The range of noise multipliers. A smaller one hides almost nothing, and the distribution would need too much memory.
LEAST_NOISE, MOST_NOISE = 0.1, 1e4
# Computed noise multipliers are rounded up to this number of decimal places.
DIGITS = 4


class Accountant:
    """Computes epsilon after any number of steps.

    Parameters
    ----------
    sampling_rate : the probability with which each example is in a batch.
    noise_multiplier : the standard deviation of the noise, in units of the norm to which gradients are clipped.
    delta : the probability with which the bound epsilon may fail.

    Raises
    ------
    ConfigError
        dp-accounting is not installed.
    """

    def __init__(self, sampling_rate: float, noise_multiplier: float, delta: float) -> None:
        self.sampling_rate, self.noise_multiplier, self.delta = sampling_rate, noise_multiplier, delta
        self._one_step = _loss_of_a_step(sampling_rate, noise_multiplier, _interval(noise_multiplier))
        self.epsilon = functools.cache(self._epsilon)

    def _epsilon(self, num_steps: int) -> float:
        """Return epsilon after `num_steps` steps."""
        return _epsilon_after(self._one_step, num_steps, self.delta)

    def most_steps(self, target: float, at_most: int) -> int:
        """Return the largest number of steps, up to `at_most`, after which epsilon does not exceed `target`."""
        if self.epsilon(at_most) <= target:
            return at_most
        enough, too_many = 0, at_most
        while too_many - enough > 1:
            middle = (enough + too_many) // 2
            if self.epsilon(middle) <= target:
                enough = middle
            else:
                too_many = middle
        return enough


def least_noise(sampling_rate: float, num_steps: int, delta: float, target: float) -> float:
    """Return the smallest noise multiplier with which epsilon is within `target` after `num_steps`, rounded up.

    Raises
    ------
    ConfigError
        No noise multiplier up to MOST_NOISE suffices, or dp-accounting is not installed.
    """

    def suffices(noise: float) -> bool:
        one_step = _loss_of_a_step(sampling_rate, noise, _interval(noise))
        return _epsilon_after(one_step, num_steps, delta) <= target

    if not suffices(MOST_NOISE):
        raise ConfigError(
            f"training.privacy.target_epsilon: no noise multiplier up to {MOST_NOISE:g} keeps epsilon within "
            f"{target:g} at delta {delta:g} over {num_steps:,} steps; raise the target, or train for fewer steps"
        )
    # Search from above: with little noise, the distribution is wide and takes long to compute.
    enough = MOST_NOISE
    while suffices(too_little := max(LEAST_NOISE, enough / 2)):
        enough = too_little
        if enough == LEAST_NOISE:
            return LEAST_NOISE
    while enough - too_little > 10**-DIGITS:
        middle = (enough + too_little) / 2
        too_little, enough = (too_little, middle) if suffices(middle) else (middle, enough)
    return float(math.ceil(enough * 10**DIGITS) / 10**DIGITS)


def _interval(noise_multiplier: float) -> float:
    if noise_multiplier >= MUCH_NOISE:
        return FINE
    return COARSE if noise_multiplier >= LITTLE_NOISE else COARSEST


def _loss_of_a_step(sampling_rate: float, noise_multiplier: float, interval: float) -> Any:
    try:
        from dp_accounting.pld import privacy_loss_distribution
    except ModuleNotFoundError as error:
        raise ConfigError(
            "training.privacy needs dp-accounting to compute epsilon, and it is not installed: "
            "pip install 'partrain[privacy]'"
        ) from error
    return privacy_loss_distribution.from_gaussian_mechanism(
        noise_multiplier, sampling_prob=sampling_rate, value_discretization_interval=interval
    )


def _epsilon_after(one_step: Any, num_steps: int, delta: float) -> float:
    if num_steps == 0:
        return 0.0
    return float(one_step.self_compose(num_steps).get_epsilon_for_delta(delta))
