from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from partrain.analysis.comparison.significance import mcnemar_exact, welch_interval


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_the_two_sided_binomial_test(only_first: int, only_second: int) -> None:
    n = only_first + only_second
    expected = stats.binomtest(only_first, n, 0.5).pvalue if n else 1.0
    assert mcnemar_exact(only_first, only_second) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_takes_many_examples() -> None:
    assert mcnemar_exact(0, 20_000) == pytest.approx(0.0)
    assert mcnemar_exact(10_000, 10_000) == 1.0


def test_welch_interval_is_scipys() -> None:
    rng = np.random.default_rng(0)
    for sizes in ((2, 2), (3, 9), (20, 5)):
        first, second = (rng.normal(0, 1 + size, size) for size in sizes)
        found = welch_interval(first.tolist(), second.tolist())
        assert found is not None
        test = stats.ttest_ind(second, first, equal_var=False)
        expected = test.confidence_interval(0.95)
        assert found == pytest.approx((expected.low, expected.high, test.df))


def test_there_is_no_interval_without_spread() -> None:
    assert welch_interval([1.0, 1.0], [2.0, 2.0]) is None
