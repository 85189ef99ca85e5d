from __future__ import annotations

import json
import math

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from partrain.analysis.comparison.decisions import decide
from partrain.analysis.comparison.seed_groups import MEASURES, welch_tests
from partrain.analysis.comparison.significance import (
    LEVEL,
    POWER,
    holm,
    mcnemar_log10_p,
    p_as_float,
    p_text,
    seeds_needed,
    student_log10_p,
    welch_test,
)


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_the_two_sided_binomial_test(only_first: int, only_second: int) -> None:
    n = only_first + only_second
    expected = stats.binomtest(only_first, n, 0.5).pvalue if n else 1.0
    assert 10 ** mcnemar_log10_p(only_first, only_second) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_takes_many_examples() -> None:
    assert mcnemar_log10_p(0, 20_000) == pytest.approx((1 - 20_000) * math.log10(2))
    assert mcnemar_log10_p(10_000, 10_000) == 0.0


def test_welch_test_is_scipys() -> None:
    rng = np.random.default_rng(0)
    for sizes in ((2, 2), (3, 9), (20, 5)):
        first, second = (rng.normal(0, 1 + size, size) for size in sizes)
        found = welch_test(first.tolist(), second.tolist())
        assert found is not None
        test = stats.ttest_ind(second, first, equal_var=False)
        expected = test.confidence_interval(0.95)
        assert found.interval == pytest.approx((expected.low, expected.high))
        assert (found.degrees_of_freedom, 10**found.log10_p) == pytest.approx((test.df, test.pvalue))


def test_there_is_no_test_without_spread() -> None:
    assert welch_test([1.0, 1.0], [2.0, 2.0]) is None


@pytest.mark.parametrize(("t", "degrees"), [(0.0, 3), (2.5, 3.7), (1e90, 4), (-300, 1000), (1e200, 2.5), (50, 5000)])
def test_p_values_of_any_size_are_right_and_never_zero(t: float, degrees: float) -> None:
    with mpmath.workdps(60):
        x = degrees / (degrees + mpmath.mpf(t) ** 2)
        expected = mpmath.log10(mpmath.betainc(mpmath.mpf(degrees) / 2, 0.5, 0, x, regularized=True))
    found = student_log10_p(t, degrees)
    assert found == pytest.approx(float(expected), rel=1e-9, abs=1e-9)
    assert p_as_float(found) > 0
    assert p_text(found) != "0"
    assert float(json.dumps(p_as_float(found))) > 0


def test_p_values_smaller_than_every_float_have_their_exponent() -> None:
    assert p_text(math.log10(0.0123)) == "0.0123"
    assert p_text(-299.5) == "3.16e-300"
    assert p_text(-6020.0) == "1.00e-6020"
    assert p_text(-6019.0000001) == "1.00e-6019"
    assert p_text(-6019.75) == "1.78e-6020"


def test_holm_corrects_as_in_a_worked_example() -> None:
    """0.01 · 4, 0.02 · 3, and the others at least as large."""
    corrected = holm([math.log10(p) for p in (0.04, 0.01, 0.03, 0.02)])
    assert [10**p for p in corrected] == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([]) == []
    assert holm([math.log10(0.7)] * 3) == [0.0, 0.0, 0.0]


def groups_of_equal_settings(rng: np.random.Generator, num_seeds: int) -> list[dict[str, object]]:
    """Two groups that differ only in the seeds: the measures of a run share its luck, and have noise of their own."""
    groups: list[dict[str, object]] = []
    for _ in range(2):
        luck = rng.normal(0, 1e-3, num_seeds)
        values = {key: (0.98 + luck + rng.normal(0, 1e-3, num_seeds)).tolist() for key in MEASURES}
        groups.append({"measures": {key: {"values": each} for key, each in values.items()}})
    return groups


def test_of_a_thousand_comparisons_of_equal_settings_at_most_five_percent_are_called_real() -> None:
    rng = np.random.default_rng(0)
    num_real = uncorrected = 0
    for trial in range(1000):
        tests = decide(welch_tests(groups_of_equal_settings(rng, (2, 3, 5, 10)[trial % 4])))
        num_real += any(test["is_real"] for test in tests)
        uncorrected += any(test["p"] < 1 - LEVEL for test in tests)
    assert num_real <= 50
    assert uncorrected > 100, "the correction is needed"


@pytest.mark.parametrize(("difference", "spreads"), [(1.0, (1.0, 1.0)), (0.8, (0.3, 1.2)), (3.0, (1.0, 2.0))])
def test_seeds_needed_show_the_difference_with_the_promised_power(
    difference: float, spreads: tuple[float, float]
) -> None:
    def sample(mean: float, spread: float) -> list[float]:
        return [mean - spread / math.sqrt(2), mean + spread / math.sqrt(2)]

    num = seeds_needed(sample(0, spreads[0]), sample(difference, spreads[1]), level=0.05)
    assert num is not None
    rng, powers = np.random.default_rng(0), []
    for n in (num - 1, num):
        first, second = rng.normal(0, spreads[0], (n, 20_000)), rng.normal(difference, spreads[1], (n, 20_000))
        powers.append(np.mean(stats.ttest_ind(first, second, equal_var=False).pvalue < 0.05))
    assert powers[0] - 0.015 < POWER < powers[1] + 0.015


def test_there_may_be_no_number_of_seeds_that_decides() -> None:
    assert seeds_needed([1.0, 2.0], [1.0, 2.0], level=0.05) is None
    assert seeds_needed([1.0, 2.0], [1.0, 2.0 + 1e-6], level=0.05) is None
    assert seeds_needed([1.0, 1.1], [9.0, 9.1], level=0.05) == 2
