"""Shapes: N examples; D, E inputs, outputs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partrain.kernels.compile_options import load
from partrain.kernels.kernel_set import kernel_set
from tests.kernels import oracles

FAST, LOOPS = kernel_set("fast"), kernel_set("loops")
BOTH = pytest.mark.parametrize("kernels", [FAST, LOOPS], ids=["fast", "loops"])
SHAPES = ((1, 1, 1), (4, 7, 3), (3, 1, 5), (2, 6, 1), (5, 33, 17), (4, 800, 128), (4, 128, 10), (32, 120, 84))
ALL_SHAPES = pytest.mark.parametrize("shape", SHAPES, ids=str)
random_shapes = st.tuples(st.integers(1, 9), st.integers(1, 70), st.integers(1, 40))


@pytest.fixture(scope="session", autouse=True)
def _loaded_kernels():
    load(FAST, "float32")
    load(LOOPS, "float32")
    load(LOOPS, "float64")


def drawn(shape, seed=0, dtype="float64"):
    """Draw x, w, b and the gradient at the outputs."""
    N, D, E = shape
    rng = np.random.default_rng(seed)
    return tuple(rng.standard_normal(size).astype(dtype) for size in ((N, D), (E, D), E, (N, E)))


def forward(kernels, x, w, b):
    y = np.full((len(x), len(w)), np.nan, x.dtype)
    kernels.dense_forward(x, w, b, y)
    return y


def backward_input(kernels, dy, w):
    dx = np.full((len(dy), w.shape[1]), np.nan, dy.dtype)
    kernels.dense_backward_input(dy, w, dx)
    return dx


def backward_weights(kernels, x, dy):
    dw, db = np.zeros((dy.shape[1], x.shape[1]), x.dtype), np.zeros(dy.shape[1], x.dtype)
    kernels.dense_backward_weights(x, dy, dw, db)
    return dw, db


def agree(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-11)


@ALL_SHAPES
def test_loops_agree_with_products_of_matrices(shape):
    x, w, b, dy = drawn(shape)
    agree(forward(LOOPS, x, w, b), oracles.dense_forward(x, w, b))
    agree(backward_input(LOOPS, dy, w), oracles.dense_backward_input(dy, w))
    dw, db = backward_weights(LOOPS, x, dy)
    expected_dw, expected_db = oracles.dense_backward_weights(x, dy)
    agree(dw, expected_dw)
    agree(db, expected_db)


@ALL_SHAPES
def test_gradients_of_the_loops_are_the_slopes_of_their_output(shape):
    x, w, b, dy = drawn(shape)
    dw, db = backward_weights(LOOPS, x, dy)
    oracles.check_gradient(lambda x: float(np.vdot(dy, forward(LOOPS, x, w, b))), x, backward_input(LOOPS, dy, w))
    oracles.check_gradient(lambda w: float(np.vdot(dy, forward(LOOPS, x, w, b))), w, dw)
    oracles.check_gradient(lambda b: float(np.vdot(dy, forward(LOOPS, x, w, b))), b, db)


@BOTH
def test_weight_gradients_are_added_to_what_is_there(kernels):
    x, _, _, dy = drawn((3, 9, 5), dtype="float32")
    dw, db = backward_weights(kernels, x, dy)
    twice_dw, twice_db = dw.copy(), db.copy()
    kernels.dense_backward_weights(x, dy, twice_dw, twice_db)
    np.testing.assert_allclose(twice_dw, 2 * dw, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(twice_db, 2 * db, rtol=1e-4, atol=1e-5)


def assert_within_rounding(fast, loops, magnitude, num_terms):
    """Assert |fast - loops| <= 1e-6 · sqrt(K) · sum|x||w|."""
    bound = 1e-6 * np.sqrt(num_terms) * magnitude
    error = np.abs(fast.astype(np.float64) - loops)
    worst = np.argmax(error - bound)
    assert (error <= bound).all(), f"off by {error.flat[worst]:.3g}, allowed are {bound.flat[worst]:.3g}"


def assert_fast_agrees_with_loops(shape, seed):
    N, D, E = shape
    x32, w32, b32, dy32 = drawn(shape, seed, "float32")
    x, w, b, dy = (a.astype(np.float64) for a in (x32, w32, b32, dy32))
    x_size, w_size, b_size, dy_size = (np.abs(a) for a in (x, w, b, dy))
    magnitude = forward(LOOPS, x_size, w_size, b_size)
    assert_within_rounding(forward(FAST, x32, w32, b32), forward(LOOPS, x, w, b), magnitude, D + 1)
    magnitude = backward_input(LOOPS, dy_size, w_size)
    assert_within_rounding(backward_input(FAST, dy32, w32), backward_input(LOOPS, dy, w), magnitude, E)
    for fast, loops, magnitude in zip(
        backward_weights(FAST, x32, dy32),
        backward_weights(LOOPS, x, dy),
        backward_weights(LOOPS, x_size, dy_size),
        strict=True,
    ):
        assert_within_rounding(fast, loops, magnitude, N)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(shape=random_shapes, seed=st.integers(0, 2**31))
def test_fast_dense_layers_agree_with_the_loops_over_random_shapes(shape, seed):
    assert_fast_agrees_with_loops(shape, seed)


@ALL_SHAPES
def test_fast_dense_layers_agree_with_the_loops_on_shapes_of_real_networks(shape):
    assert_fast_agrees_with_loops(shape, seed=0)


@BOTH
@ALL_SHAPES
def test_an_example_has_the_same_bits_alone_as_in_any_batch(kernels, shape):
    x, w, b, dy = drawn(shape, dtype="float32")
    y, dx = forward(kernels, x, w, b), backward_input(kernels, dy, w)
    N = shape[0]
    for first, last in {(0, 1), (N // 2, N // 2 + 1), (N - 1, N), (N // 2, N)}:
        assert np.array_equal(forward(kernels, x[first:last], w, b), y[first:last])
        assert np.array_equal(backward_input(kernels, dy[first:last], w), dx[first:last])


@BOTH
@ALL_SHAPES
def test_results_have_the_same_bits_wherever_the_arrays_lie_in_memory(kernels, shape):
    x, w, b, dy = drawn(shape, dtype="float32")
    y, dx = forward(kernels, x, w, b), backward_input(kernels, dy, w)
    dw, db = backward_weights(kernels, x, dy)
    for offset in (1, 3, 8):
        x2, w2, b2, dy2 = (oracles.unaligned(a, offset) for a in (x, w, b, dy))
        y2, dx2, dw2, db2 = (oracles.unaligned(np.zeros_like(a), offset) for a in (y, dx, dw, db))
        kernels.dense_forward(x2, w2, b2, y2)
        kernels.dense_backward_input(dy2, w2, dx2)
        kernels.dense_backward_weights(x2, dy2, dw2, db2)
        for actual, expected in ((y2, y), (dx2, dx), (dw2, dw), (db2, db)):
            assert np.array_equal(actual, expected)


@BOTH
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_reaches_what_is_computed_from_it(kernels, bad):
    x, w, b, dy = drawn((5, 33, 17), dtype="float32")
    bad_x, bad_w, bad_b, bad_dy = (a.copy() for a in (x, w, b, dy))
    bad_x[2, 30] = bad_w[4, 7] = bad_b[4] = bad_dy[2, 4] = bad
    results = (
        forward(kernels, bad_x, w, b)[2],
        forward(kernels, x, bad_w, b)[:, 4],
        forward(kernels, x, w, bad_b)[:, 4],
        backward_input(kernels, bad_dy, w)[2],
        backward_input(kernels, dy, bad_w)[:, 7],
        backward_weights(kernels, bad_x, dy)[0][:, 30],
        backward_weights(kernels, x, bad_dy)[0][4],
        backward_weights(kernels, x, bad_dy)[1][4:5],
    )
    assert not any(np.isfinite(result).any() for result in results)
