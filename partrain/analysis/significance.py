"""Is a difference real? Intervals for groups of runs, an exact test for two runs on the same examples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, variance

LEVEL = 0.95


def welch_interval(
    first: Sequence[float], second: Sequence[float], level: float = LEVEL
) -> tuple[float, float, float] | None:
    """Return Welch's interval of the difference of two means, second minus first, with its degrees of freedom.

    (mean2 - mean1) ± t · sqrt(v1/n1 + v2/n2), with the variances v, and t the quantile of Student's distribution
    for the degrees of freedom (v1/n1 + v2/n2)² / ((v1/n1)²/(n1-1) + (v2/n2)²/(n2-1)).

    Parameters
    ----------
    first, second : at least two finite values each.
    level : the share of such intervals that hold the true difference.

    Returns
    -------
    Lower end, upper end, degrees of freedom; None where no value in either group differs from the others.

    Raises
    ------
    ModuleNotFoundError : scipy is not installed.

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
    freedom = squared_error**2 / sum(
        part**2 / (len(values) - 1) for part, values in zip(parts, (first, second), strict=True)
    )
    difference = fmean(second) - fmean(first)
    reach = float(t.ppf((1 + level) / 2, freedom)) * math.sqrt(squared_error)
    return difference - reach, difference + reach, freedom


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Return the two-sided p-value of McNemar's exact test.

    If two classifiers are equally good, each example that just one of them gets right is as likely the first's as
    the second's: of n such examples the smaller number k is binomial, p = 2 · sum over i ≤ k of C(n, i) / 2^n.

    Parameters
    ----------
    only_first, only_second : examples that only the first, or only the second, classifies rightly.

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
    # Whole numbers until the last step: 2^n has no float for large n.
    return 1.0 if 2 * ways >= 2**n else 2 * ways / 2**n
