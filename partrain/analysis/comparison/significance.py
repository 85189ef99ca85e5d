"""Tests of significance: Welch's interval for two groups of runs, McNemar's exact test for two runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, variance

# The confidence level of intervals; differences are significant at the level 1 - LEVEL.
LEVEL = 0.95


def welch_interval(
    first: Sequence[float], second: Sequence[float], level: float = LEVEL
) -> tuple[float, float, float] | None:
    """Return Welch's confidence interval for the difference of two means, second minus first.

    (mean2 - mean1) ± t · sqrt(v1/n1 + v2/n2), with the variances v, and t the quantile of Student's distribution
    for the degrees of freedom (v1/n1 + v2/n2)² / ((v1/n1)²/(n1-1) + (v2/n2)²/(n2-1)).

    Parameters
    ----------
    first, second : at least two finite values each.
    level : the confidence level.

    Returns
    -------
    Lower end, upper end, degrees of freedom; None if all values within each group are equal.

    Raises
    ------
    ModuleNotFoundError
        scipy is not installed.

    References
    ----------
    B. L. Welch, "The generalization of 'Student's' problem when several different population variances are
    involved", Biometrika 34, 1947.
    """
    from scipy.stats import t

    parts = [variance(values) / len(values) for values in (first, second)]
    squared_error = sum(parts)
    if squared_error <= 0:
        return None
    degrees_of_freedom = squared_error**2 / sum(
        part**2 / (len(values) - 1) for part, values in zip(parts, (first, second), strict=True)
    )
    difference = fmean(second) - fmean(first)
    half_width = float(t.ppf((1 + level) / 2, degrees_of_freedom)) * math.sqrt(squared_error)
    return difference - half_width, difference + half_width, degrees_of_freedom


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Return the two-sided p-value of McNemar's exact test.

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
    return 1.0 if 2 * ways >= 2**n else 2 * ways / 2**n
