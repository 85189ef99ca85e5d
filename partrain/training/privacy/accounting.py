"""Privacy accounting: epsilon, which bounds what training with noise reveals about a single example.

A step includes each example in its batch with a small probability, and adds Gaussian noise to the sum of the clipped
gradients. Google's dp-accounting computes epsilon for any number of such steps from the distribution of the privacy
loss. It rounds the losses to a grid, towards a larger epsilon, so every grid gives an upper bound. A finer grid gives a
tighter bound, but takes longer. The grid does not depend on the planned number of steps, so that epsilon is a function
of the steps that were made. Neighbouring data sets differ by adding or removing one example.

Sources: Dwork, Roth, "The algorithmic foundations of differential privacy", 2014; Koskela, Jälkö, Honkela, "Computing
tight differential privacy guarantees using FFT", arXiv 1906.03049; Doroshenko et al., "Connect the dots: tighter
discrete approximations of privacy loss distributions", arXiv 2207.04380; Mironov, Talwar, Zhang, "Rényi differential
privacy of the sampled Gaussian mechanism", arXiv 1908.10530.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from partrain.errors import ConfigError

# The interval of the grid: so many points lie within one standard deviation of a step's loss. But an interval is at
# most COARSEST, which little noise needs, and a step has at most MOST_POINTS on each side. With 8 points, epsilon
# exceeds the exact one by 0.1 to 0.2 %, seldom by more.
POINTS_PER_DEVIATION, COARSEST, MOST_POINTS = 8, 1e-2, 2**17
# The range of noise multipliers. A smaller one hides almost nothing, and the distribution would need too much memory.
LEAST_NOISE, MOST_NOISE = 0.1, 1e4
# Computed noise multipliers have this number of decimal places, and keep epsilon below the target by this share of it.
DIGITS, MARGIN = 4, 1e-7
# The tails of the noise that the grid leaves out, in MANY_STEPS together, as a fraction of delta. They count as a
# complete loss of privacy.
TAILS, MANY_STEPS = 1e-6, 10**7
# The Fourier transforms of dp-accounting round delta by about half of this for each step, up or down.
ROUNDING_PER_STEP = 2.0**-53


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
        one_step = _loss_of_a_step(sampling_rate, noise_multiplier, delta)
        self._epsilon = functools.cache(
            functools.partial(_epsilon_after, one_step, sampling_rate, noise_multiplier, delta)
        )

    def epsilon(self, num_steps: int) -> float:
        """Return epsilon after `num_steps` steps: an upper bound."""
        return self._epsilon(num_steps)

    def most_steps(self, target: float, at_most: int) -> int:
        """Return the largest number of steps, up to `at_most`, after which epsilon does not exceed `target`.

        Half of MARGIN is kept, so that a target that is an epsilon itself, as a run printed it, ends the training at
        the same step on every processor.
        """
        bound = target * (1 - MARGIN / 2)
        if self.epsilon(at_most) <= bound:
            return at_most
        enough, too_many = 0, at_most
        while too_many - enough > 1:
            middle = (enough + too_many) // 2
            if self.epsilon(middle) <= bound:
                enough = middle
            else:
                too_many = middle
        return enough


def least_noise(sampling_rate: float, num_steps: int, delta: float, target: float) -> float:
    """Return the smallest noise multiplier with DIGITS places with which epsilon is within `target` after `num_steps`.

    Other versions of SciPy, and other processors, round epsilon differently, by far less than MARGIN. The margin keeps
    such a difference from ending the training a step early. It changes the noise multiplier only if epsilon is within
    that difference of the bound; and a run records its multiplier, so it never changes afterwards.

    Raises
    ------
    ConfigError
        No noise multiplier up to MOST_NOISE suffices, or dp-accounting is not installed.
    """

    bound = target * (1 - MARGIN)

    @functools.cache
    def epsilon(noise: float) -> float:
        return Accountant(sampling_rate, noise, delta).epsilon(num_steps)

    def suffices(noise: float) -> bool:
        return epsilon(noise) <= bound

    def log_excess(noise: float) -> float:
        return math.log(min(max(epsilon(noise) / bound, 1e-6), 1e6))

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
    from scipy.optimize import brentq

    unit: int = 10**DIGITS
    number: int = math.ceil(brentq(log_excess, too_little, enough, xtol=0.25 / unit) * unit)
    # The smallest multiple that suffices does not depend on how the search came near it.
    while not suffices(number / unit):
        number += 1
    while suffices((number - 1) / unit):
        number -= 1
    return number / unit


def _loss_of_a_step(rate: float, noise: float, delta: float) -> Any:
    try:
        from dp_accounting.pld import privacy_loss_distribution
    except ModuleNotFoundError as error:
        raise ConfigError(
            "training.privacy needs dp-accounting to compute epsilon, and it is not installed: "
            "pip install 'partrain[privacy]'"
        ) from error
    log_tail = max(-50.0, math.log(TAILS * delta / MANY_STEPS))
    return privacy_loss_distribution.from_gaussian_mechanism(
        noise,
        sampling_prob=rate,
        value_discretization_interval=_interval(rate, noise, log_tail),
        log_mass_truncation_bound=log_tail,
    )


def _interval(rate: float, noise: float, log_tail: float) -> float:
    """Return the interval of the grid."""
    # The standard deviation of a step's loss: of its Taylor series in `rate`, but at most that of whole batches.
    deviation = min(rate * math.sqrt(math.expm1(noise**-2)), 1 / noise)
    # The largest loss, `quantile` standard deviations of the noise away.
    quantile = math.sqrt(-2 * log_tail)
    largest = math.log1p(rate * math.expm1((quantile + 0.5 / noise) / noise))
    return max(min(deviation / POINTS_PER_DEVIATION, COARSEST), largest / MOST_POINTS)


def _epsilon_after(one_step: Any, rate: float, noise: float, delta: float, num_steps: int) -> float:
    if num_steps == 0:
        return 0.0
    rounding = num_steps * ROUNDING_PER_STEP
    with np.errstate(over="ignore"):  # an epsilon above 709 overflows: infinity is the right answer
        epsilon = float(one_step.self_compose(num_steps).get_epsilon_for_delta(delta - rounding))
    return epsilon if rounding < delta / 100 else min(epsilon, _renyi_epsilon(rate, noise, delta, num_steps))


def _renyi_epsilon(rate: float, noise: float, delta: float, num_steps: int) -> float:
    """Return a less tight upper bound that needs no Fourier transform, for a delta as small as its rounding errors."""
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.rdp import RdpAccountant

    event = PoissonSampledDpEvent(rate, GaussianDpEvent(noise))
    return float(RdpAccountant().compose(event, num_steps).get_epsilon(delta))
