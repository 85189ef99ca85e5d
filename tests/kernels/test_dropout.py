"""Shapes: N examples; D numbers of one; C, P channels, places."""

from __future__ import annotations

import numpy as np
import pytest

from partrain.kernels.compiler.loading import load
from partrain.kernels.dropout import draw_factors, scale_by_factors
from tests.kernels.test_philox import philox_by_the_paper

KEY = np.uint64(0x0123456789ABCDEF)
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])


@pytest.fixture(autouse=True, scope="module")
def _loaded_kernels():
    for dtype in ("float32", "float64"):
        load([draw_factors, scale_by_factors], dtype)


def drawn(examples, rate, num_numbers, key=KEY, dtype="float32"):
    factors = np.full((len(examples), num_numbers), np.nan, dtype)
    draw_factors(key, np.array(examples, np.int64), rate, factors)
    return factors


@DTYPES
@pytest.mark.parametrize("num_numbers", [1, 4, 6, 37])
def test_factors_are_those_of_the_words_of_philox(dtype, num_numbers):
    examples, rate, num_blocks = [5, 0, 2**40 + 3], 0.3, -(-num_numbers // 4)
    factors = drawn(examples, rate, num_numbers, dtype=dtype)
    for example, row in zip(examples, factors, strict=True):
        whose, key = (example % 2**32, example >> 32), (0x89ABCDEF, 0x01234567)
        words = np.array([philox_by_the_paper((b, 0, *whose), key, 32) for b in range(num_blocks)]).T.reshape(-1)
        expected = np.where(words[:num_numbers] < rate * 2**32, 0, 1 / (1 - rate)).astype(dtype)
        assert np.array_equal(row, expected)


def test_factors_are_a_function_of_key_and_example_alone():
    together = drawn([3, 7, 1], 0.5, 50)
    assert np.array_equal(drawn([7], 0.5, 50)[0], together[1])
    assert not np.array_equal(together[0], together[1])
    assert not np.array_equal(drawn([3], 0.5, 50, key=KEY + np.uint64(1))[0], together[0])


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9, 1 - 2**-53])
def test_as_many_are_dropped_as_the_rate_says_and_the_mean_is_1(rate):
    factors = drawn(range(200), rate, 1000, dtype="float64")
    dropped = (factors == 0).mean()
    assert abs(dropped - rate) < 5 * np.sqrt(rate * (1 - rate) / factors.size) + 1e-9
    if rate < 0.99:
        assert abs(factors.mean() - 1) < 5 * np.sqrt(rate / (1 - rate) / factors.size) + 1e-12


def test_neighbours_in_an_image_and_among_examples_are_dropped_independently():
    kept = drawn(range(400), 0.5, 784) > 0
    bound = 5 / np.sqrt(kept.size)
    signs = np.where(kept, 1.0, -1.0)
    for shifted in (np.roll(signs, 1, axis=1), np.roll(signs, 28, axis=1), np.roll(signs, 1, axis=0)):
        assert abs((signs * shifted).mean()) < bound


@DTYPES
@pytest.mark.parametrize(("C", "P"), [(1, 6), (5, 1), (3, 4), (1, 1)])
def test_rows_in_either_order_are_multiplied_by_the_factors_of_their_numbers(dtype, C, P):
    rng = np.random.default_rng(0)
    factors_NCP, x_NCP = (rng.standard_normal((2, C, P)).astype(dtype) for _ in range(2))
    factors_ND, expected = factors_NCP.reshape(2, -1), x_NCP * factors_NCP
    as_the_factors = x_NCP.reshape(2, -1).copy()
    scale_by_factors(factors_ND, 1, P, as_the_factors)
    assert np.array_equal(as_the_factors, expected.reshape(2, -1))
    channels_last = x_NCP.transpose(0, 2, 1).reshape(2, -1).copy()
    scale_by_factors(factors_ND, C, 1, channels_last)
    assert np.array_equal(channels_last.reshape(2, P, C), expected.transpose(0, 2, 1))


def test_a_nan_is_seen_also_where_it_is_dropped():
    x = np.array([[np.nan, np.inf, 1.0]])
    scale_by_factors(np.zeros((1, 3)), 1, 1, x)
    assert np.isnan(x).tolist() == [[True, True, False]]
