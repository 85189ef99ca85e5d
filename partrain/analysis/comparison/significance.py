"""Tests of significance: Welch's test for two groups of runs, McNemar's exact test for two runs, Holm's correction.

p values are returned as their logarithms to base 10: those of large differences are smaller than every float.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance

# The confidence level of intervals; differences are significant at the level 1 - LEVEL.
LEVEL = 0.95
# The probability with which `seeds_needed` seeds show a difference that exists.
POWER = 0.8
MAX_SEEDS = 10_000
# Smaller p values are computed by their logarithms, because floats lose digits below 1e-308.
_SMALLEST_FLOAT_P = 1e-290
_SMALLEST_FLOAT = 5e-324


@dataclass(frozen=True)
class WelchTest:
    """The outcome of Welch's test of the difference of two means, second minus first.

    Attributes
    ----------
    difference : of the means.
    interval : lower and upper end of its confidence interval.
    degrees_of_freedom : of Student's distribution.
    log10_p : logarithm of the two-sided p value.
    """

    difference: float
    interval: tuple[float, float]
    degrees_of_freedom: float
    log10_p: float


def welch_test(first: Sequence[float], second: Sequence[float], level: float = LEVEL) -> WelchTest | None:
    """Return Welch's test for the difference of two means; None if all values within each group are equal.

    The interval is (mean2 - mean1) ± t · sqrt(v1/n1 + v2/n2), with the variances v, and t the quantile of Student's
    distribution for the degrees of freedom (v1/n1 + v2/n2)² / ((v1/n1)²/(n1-1) + (v2/n2)²/(n2-1)).

    Parameters
    ----------
    first, second : at least two finite values each.
    level : the confidence level.

    Raises
    ------
    ModuleNotFoundError
        scipy is not installed.

    References
    ----------
    B. L. Welch, "The generalization of 'Student's' problem when several different population variances are
    involved", Biometrika 34, 1947.
    """
    from scipy.special import stdtrit

    parts = [variance(values) / len(values) for values in (first, second)]
    error = math.sqrt(sum(parts))
    if error <= 0:
        return None
    difference = fmean(second) - fmean(first)
    degrees_of_freedom = _degrees_of_freedom(parts[0] / sum(parts), len(first), len(second))
    half_width = float(stdtrit(degrees_of_freedom, (1 + level) / 2)) * error
    interval = difference - half_width, difference + half_width
    return WelchTest(difference, interval, degrees_of_freedom, student_log10_p(difference / error, degrees_of_freedom))


def half_width(values: Sequence[float], level: float = LEVEL) -> float:
    """Return half of the confidence interval of the mean: t · s / sqrt(n), t being the quantile of Student's t.

    Parameters
    ----------
    values : at least two finite values.
    level : the confidence level.

    Raises
    ------
    ModuleNotFoundError
        scipy is not installed.
    """
    from scipy.special import stdtrit

    return float(stdtrit(len(values) - 1, (1 + level) / 2)) * math.sqrt(variance(values) / len(values))


def _degrees_of_freedom(share: float, num_first: float, num_second: float) -> float:
    """Return Welch's degrees of freedom, given the first group's share in the squared standard error."""
    return 1 / (share**2 / (num_first - 1) + (1 - share) ** 2 / (num_second - 1))


def student_log10_p(t: float, degrees_of_freedom: float) -> float:
    """Return the logarithm of the two-sided p value of Student's t.

    With f degrees of freedom, a = f/2 and x = f/(f + t²), p is the regularised incomplete beta function
    I_x(a, 1/2) = x^a / (a B(a, 1/2)) · sum over k of a/(a+k) · (1/2)(3/2)…(k-1/2)/k! · x^k.

    Raises
    ------
    ModuleNotFoundError
        scipy is not installed.

    References
    ----------
    NIST Digital Library of Mathematical Functions, 8.17.7 and 15.2.1.
    """
    from scipy.special import stdtr

    p = 2 * float(stdtr(degrees_of_freedom, -abs(t)))
    if p > _SMALLEST_FLOAT_P:
        return min(0.0, math.log10(p))
    # t² may exceed every float.
    a, log_x = degrees_of_freedom / 2, -2 * math.log(math.hypot(1, t / math.sqrt(degrees_of_freedom)))
    x, total, term, k = math.exp(log_x), 1.0, 1.0, 0
    while term > 1e-17 * total:
        k += 1
        term *= x * (k - 0.5) / k
        total += term * a / (a + k)
    log_beta = math.lgamma(a) + math.lgamma(0.5) - math.lgamma(a + 0.5)
    return (a * log_x - math.log(a) - log_beta + math.log(total)) / math.log(10)


def mcnemar_log10_p(only_first: int, only_second: int) -> float:
    """Return the logarithm of the two-sided p value of McNemar's exact test.

    If two classifiers are equally good, an example that exactly one of them classifies correctly is equally likely to
    be the first's or the second's. Of n such examples, the smaller count k is binomial:
    p = 2 · sum over i ≤ k of C(n, i) / 2^n.

    Parameters
    ----------
    only_first, only_second : numbers of examples that only the first, or only the second, classifies correctly.

    References
    ----------
    Q. McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
    Psychometrika 12, 1947.
    """
    n, k = only_first + only_second, min(only_first, only_second)
    ways, term = 0, 1
    for i in range(k + 1):
        ways += term
        term = term * (n - i) // (i + 1)
    # Integers until the last step: for large n, 2^n exceeds every float.
    return 0.0 if 2 * ways >= 2**n else math.log10(2 * ways) - n * math.log10(2)


def holm(log10_ps: Sequence[float]) -> list[float]:
    """Return the p values of several tests, corrected by Holm's method, all as logarithms.

    The smallest of m p values is multiplied by m, the next one by m - 1, and so on; none may fall below the one before
    it. If no difference exists, the probability that any corrected p value is below the level is at most the level,
    whether the tests are independent or not.

    References
    ----------
    S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979.
    """
    corrected, largest = [0.0] * len(log10_ps), -math.inf
    for rank, index in enumerate(sorted(range(len(log10_ps)), key=lambda index: log10_ps[index])):
        largest = max(largest, log10_ps[index] + math.log10(len(log10_ps) - rank))
        corrected[index] = min(0.0, largest)
    return corrected


def seeds_needed(first: Sequence[float], second: Sequence[float], level: float, power: float = POWER) -> int | None:
    """Return the number of seeds per group with which Welch's test would show the observed difference.

    If the means and variances of the groups are those observed, t has the noncentral Student distribution with
    noncentrality |mean2 - mean1| / sqrt((v1 + v2)/n); n is the smallest number for which it exceeds the critical value
    with the given probability.

    Parameters
    ----------
    first, second : at least two finite values each.
    level : of the two-sided test, such as 0.05.
    power : the probability.

    Returns
    -------
    The number; None if it exceeds MAX_SEEDS.

    Raises
    ------
    ModuleNotFoundError
        scipy is not installed.

    References
    ----------
    S.-L. Jan, G. Shieh, "Optimal sample sizes for Welch's test under various allocation and cost considerations",
    Behavior Research Methods 43, 2011.
    """
    from scipy.special import nctdtr, stdtrit

    variances = variance(first), variance(second)
    difference, share = abs(fmean(second) - fmean(first)), variances[0] / sum(variances)

    def is_enough(num: int) -> bool:
        degrees_of_freedom = _degrees_of_freedom(share, num, num)
        critical = float(stdtrit(degrees_of_freedom, 1 - level / 2))
        # A difference with the wrong sign, which would be significant as well, is too improbable to count.
        return float(1 - nctdtr(degrees_of_freedom, difference / math.sqrt(sum(variances) / num), critical)) >= power

    too_few, enough = 1, 2
    while not is_enough(enough):
        too_few, enough = enough, 2 * enough
        if too_few >= MAX_SEEDS:
            return None
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if is_enough(middle) else (middle, enough)
    return enough if enough <= MAX_SEEDS else None


def p_as_float(log10_p: float) -> float:
    """Return a p value as a float; the smallest float that is not 0 stands for all smaller ones."""
    return max(math.pow(10, log10_p), _SMALLEST_FLOAT)


def p_text(log10_p: float) -> str:
    """Return a p value with three significant digits, such as 0.0123 or 4.56e-789."""
    if log10_p > -300:
        return f"{p_as_float(log10_p):.3g}"
    exponent = math.floor(log10_p)
    mantissa = f"{math.pow(10, log10_p - exponent):.2f}"
    return f"1.00e{exponent + 1}" if mantissa == "10.00" else f"{mantissa}e{exponent}"
