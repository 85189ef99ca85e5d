"""Shapes: N examples; C, H, W channels, rows, columns; P, Q output rows, columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partrain.kernels import loops_pooling, max_pool
from partrain.kernels.compiler.loading import load
from tests.kernels import channels_last, oracles


class Kernels(NamedTuple):
    """The passes, of arrays (N, C, H, W)."""

    forward: Callable[..., Any]  # of x, window, stride, padding; returns the maxima and the winners
    backward_input: Callable[..., Any]  # of the gradient, the winners, the input's shape


def _loops_forward(x, window, stride, padding=(0, 0)):
    shape = *x.shape[:2], *oracles.num_positions(x.shape[2:], window, stride, padding)
    y, winner = np.full(shape, np.nan, x.dtype), np.full(shape, -1, np.int64)
    loops_pooling.max_pool_forward(x, window, stride, padding, y, winner)
    return y, winner


def _loops_backward_input(dy, winner, shape):
    dx = np.full(shape, np.nan, dy.dtype)
    loops_pooling.max_pool_backward_input(dy, winner, dx)
    return dx


LOOPS = Kernels(_loops_forward, _loops_backward_input)
FAST = Kernels(channels_last.max_pool_forward, channels_last.max_pool_backward_input)
BOTH = pytest.mark.parametrize("kernels", [FAST, LOOPS], ids=["fast", "loops"])


@pytest.fixture(scope="session", autouse=True)
def _loaded_kernels():
    load((max_pool.max_pool_forward, max_pool.max_pool_backward_input), "float32")
    load((loops_pooling.max_pool_forward, loops_pooling.max_pool_backward_input), "float32")
    load((loops_pooling.max_pool_forward, loops_pooling.max_pool_backward_input), "float64")


class Shapes(NamedTuple):
    N: int
    C: int
    H: int
    W: int
    window: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)

    @property
    def input(self):
        return self.N, self.C, self.H, self.W

    @property
    def output(self):
        return self.N, self.C, *oracles.num_positions((self.H, self.W), self.window, self.stride, self.padding)


CASES = {
    "article": Shapes(2, 3, 8, 8, (2, 2), (2, 2)),
    "overlapping": Shapes(2, 2, 9, 9, (3, 3), (2, 2)),
    "overlapping and rectangular": Shapes(2, 2, 7, 10, (3, 4), (1, 2)),
    "rows and columns left over": Shapes(2, 2, 9, 11, (2, 3), (2, 3)),
    "gaps between windows": Shapes(2, 2, 11, 10, (2, 2), (5, 3)),
    "whole plane": Shapes(2, 2, 5, 6, (5, 6), (1, 1)),
    "padded": Shapes(2, 2, 8, 7, (3, 2), (2, 1), (1, 1)),
    "one pixel": Shapes(3, 2, 4, 5, (1, 1), (1, 1)),
}
ALL_CASES = pytest.mark.parametrize("shapes", CASES.values(), ids=CASES)


@st.composite
def random_shapes(draw):
    small = st.integers(1, 5)
    window = draw(st.tuples(small, small))
    padding = tuple(draw(st.sampled_from([0, window[k] // 2])) for k in range(2))
    H, W = (draw(st.integers(max(1, window[k] - 2 * padding[k]), 19)) for k in range(2))
    # On both sides of whole vectors.
    C = draw(st.one_of(small, st.sampled_from([7, 8, 9, 15, 16, 17, 24, 33])))
    return Shapes(draw(small), C, H, W, window, draw(st.tuples(small, small)), padding)


over_random_shapes = settings(deadline=None, derandomize=True, max_examples=100)


def drawn(shapes, seed=0, dtype="float64", num_levels=None):
    """Draw x and the gradient at the outputs; with `num_levels`, x has so many values and thus many ties."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shapes.input) if num_levels is None else rng.integers(0, num_levels, shapes.input)
    return x.astype(dtype), rng.standard_normal(shapes.output).astype(dtype)


def pooled(kernels, shapes, x):
    """Return the maxima and the winners."""
    return kernels.forward(x, shapes.window, shapes.stride, shapes.padding)


def forward_and_back(kernels, shapes, x, dy):
    """Return the maxima, and the gradient at the input."""
    y, winner = pooled(kernels, shapes, x)
    return y, kernels.backward_input(dy, winner, shapes.input)


@ALL_CASES
@pytest.mark.parametrize("num_levels", [None, 3], ids=["without ties", "with ties"])
def test_loops_take_the_first_of_the_largest_in_each_window(shapes, num_levels):
    x, dy = drawn(shapes, num_levels=num_levels)
    y, winner = pooled(LOOPS, shapes, x)
    expected_y, expected_winner = oracles.max_pool_forward(x, shapes.window, shapes.stride, shapes.padding)
    assert np.array_equal(y, expected_y)
    assert np.array_equal(winner, expected_winner)
    _, dx = forward_and_back(LOOPS, shapes, x, dy)
    np.testing.assert_allclose(dx, oracles.max_pool_backward_input(dy, winner, x.shape), rtol=1e-14, atol=1e-14)


@over_random_shapes
@given(shapes=random_shapes(), seed=st.integers(0, 2**31), num_levels=st.sampled_from([None, 2, 5]))
def test_both_kernel_sets_agree_with_numpy_over_random_shapes(shapes, seed, num_levels):
    for kernels, dtype in ((LOOPS, "float64"), (LOOPS, "float32"), (FAST, "float32")):
        x, dy = drawn(shapes, seed, dtype, num_levels)
        y, dx = forward_and_back(kernels, shapes, x, dy)
        expected_y, winner = oracles.max_pool_forward(x, shapes.window, shapes.stride, shapes.padding)
        assert np.array_equal(y, expected_y)
        assert np.array_equal(pooled(kernels, shapes, x)[1], winner)
        expected_dx = oracles.max_pool_backward_input(dy.astype(np.float64), winner, x.shape)
        np.testing.assert_allclose(dx, expected_dx, rtol=0, atol=1e-14 if dtype == "float64" else 1e-5)


@ALL_CASES
def test_gradient_of_the_loops_is_the_slope_of_their_output(shapes):
    _, dy = drawn(shapes)
    # All values differ by at least 0.1: no step of the check makes another one the largest.
    x = 0.1 * np.random.default_rng(0).permutation(np.prod(shapes.input)).astype(np.float64).reshape(shapes.input)
    _, dx = forward_and_back(LOOPS, shapes, x, dy)
    oracles.check_gradient(lambda x: float(np.vdot(dy, pooled(LOOPS, shapes, x)[0])), x, dx)


@BOTH
def test_gradients_of_overlapping_windows_add_up(kernels):
    shapes = Shapes(1, 1, 5, 5, (3, 3), (1, 1))
    x = np.zeros(shapes.input, np.float32)
    x[0, 0, 2, 2] = 1  # inside all nine windows
    _, dx = forward_and_back(kernels, shapes, x, np.ones(shapes.output, np.float32))
    expected = np.zeros_like(x)
    expected[0, 0, 2, 2] = 9
    assert np.array_equal(dx, expected)


@BOTH
def test_negative_numbers_have_a_maximum_too(kernels):
    shapes = Shapes(1, 1, 2, 2, (2, 2), (2, 2))
    x = np.array([[[[-3, -np.inf], [-2, -5]]]], np.float32)
    y, dx = forward_and_back(kernels, shapes, x, np.ones(shapes.output, np.float32))
    assert y.item() == -2
    assert dx.tolist() == [[[[0, 0], [1, 0]]]]


@BOTH
@pytest.mark.parametrize("place", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_a_nan_anywhere_in_a_window_is_its_maximum(kernels, place):
    shapes = Shapes(1, 1, 2, 2, (2, 2), (2, 2))
    x = np.array([[[[3, np.inf], [2, 5]]]], np.float32)
    x[0, 0, *place] = np.nan
    y, dx = forward_and_back(kernels, shapes, x, np.full(shapes.output, np.nan, np.float32))
    assert np.isnan(y).all()
    assert np.isnan(dx).any()


@BOTH
@settings(deadline=None, derandomize=True, max_examples=40)
@given(shapes=random_shapes(), seed=st.integers(0, 2**31))
def test_an_example_has_the_same_bits_alone_as_in_any_batch(kernels, shapes, seed):
    x, dy = drawn(shapes, seed, "float32")
    y, dx = forward_and_back(kernels, shapes, x, dy)
    for n in range(shapes.N):
        y_alone, dx_alone = forward_and_back(kernels, shapes._replace(N=1), x[n : n + 1], dy[n : n + 1])
        assert np.array_equal(y_alone[0], y[n])
        assert np.array_equal(dx_alone[0], dx[n])
        if kernels is FAST:
            assert np.array_equal(
                channels_last.max_pool_forward(x, shapes.window, shapes.stride, shapes.padding, offset=3)[0], y
            )


@settings(deadline=None, derandomize=True, max_examples=40)
@given(shapes=random_shapes(), seed=st.integers(0, 2**31))
def test_fast_gradients_are_the_same_from_rows_in_either_order(shapes, seed):
    x, dy = drawn(shapes, seed, "float32")
    _, winner = pooled(FAST, shapes, x)
    flattened = channels_last.max_pool_backward_input(dy, winner, shapes.input, flattened=True)
    assert np.array_equal(flattened, FAST.backward_input(dy, winner, shapes.input))


@settings(deadline=None, derandomize=True, max_examples=60)
@given(shapes=random_shapes(), seed=st.integers(0, 2**31))
def test_fast_maxima_and_winners_are_those_of_the_loops_with_values_that_are_not_finite(shapes, seed):
    x, _ = drawn(shapes, seed, "float32", num_levels=4)
    rng = np.random.default_rng(seed)
    for bad in (np.nan, np.inf, -np.inf):
        x[rng.random(x.shape) < 0.2] = bad
    for fast, expected in zip(pooled(FAST, shapes, x), pooled(LOOPS, shapes, x), strict=True):
        np.testing.assert_array_equal(fast, expected)
