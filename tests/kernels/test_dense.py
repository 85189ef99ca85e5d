"""Shapes: N examples; D, E inputs, outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partrain.kernels import dense, loops
from partrain.kernels.compiler.loading import load
from tests.kernels import channels_last, oracles


class Kernels(NamedTuple):
    """The passes: of the arrays, and where they lie in memory."""

    forward: Callable[..., Any]
    backward_input: Callable[..., Any]
    backward_weights: Callable[..., Any]


def _loops_forward(x, w, b, offset=0):
    y = oracles.unaligned(np.full((len(x), len(w)), np.nan, x.dtype), offset)
    loops.dense_forward(*(oracles.unaligned(a, offset) for a in (x, w, b)), y)
    return y


def _loops_backward_input(dy, w, offset=0):
    dx = oracles.unaligned(np.full((len(dy), w.shape[1]), np.nan, dy.dtype), offset)
    loops.dense_backward_input(oracles.unaligned(dy, offset), oracles.unaligned(w, offset), dx)
    return dx


def _loops_backward_weights(x, dy, offset=0):
    sizes = (dy.shape[1], x.shape[1]), dy.shape[1]
    dw, db = (oracles.unaligned(np.full(size, np.nan, x.dtype), offset) for size in sizes)
    loops.dense_backward_weights(oracles.unaligned(x, offset), oracles.unaligned(dy, offset), dw, db)
    return dw, db


LOOPS = Kernels(_loops_forward, _loops_backward_input, _loops_backward_weights)
FAST = Kernels(
    channels_last.dense_forward, channels_last.dense_backward_input, channels_last.dense_backward_weights
)  # fmt: skip
BOTH = pytest.mark.parametrize("kernels", [FAST, LOOPS], ids=["fast", "loops"])
SHAPES = (
    *((1, 1, 1), (4, 7, 3), (3, 1, 5), (2, 6, 1), (5, 33, 17), (4, 800, 128), (4, 128, 10), (32, 120, 84)),
    # Several stretches, panels and strips, and what is left over of each.
    *((6, 1031, 10), (3, 2100, 35), (9, 401, 67), (19, 512, 25)),
)
ALL_SHAPES = pytest.mark.parametrize("shape", SHAPES, ids=str)
random_shapes = st.tuples(st.integers(1, 11), st.integers(1, 130), st.integers(1, 40))


@pytest.fixture(scope="session", autouse=True)
def _loaded_kernels():
    load((dense.dense_forward, dense.dense_backward_input, dense.dense_backward_weights), "float32")
    of_loops = (loops.dense_forward, loops.dense_backward_input, loops.dense_backward_weights)
    load(of_loops, "float32")
    load(of_loops, "float64")


def drawn(shape, seed=0, dtype="float64"):
    """Draw x, w, b and the gradient at the outputs."""
    N, D, E = shape
    rng = np.random.default_rng(seed)
    return tuple(rng.standard_normal(size).astype(dtype) for size in ((N, D), (E, D), E, (N, E)))


def agree(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-11)


@ALL_SHAPES
def test_loops_agree_with_products_of_matrices(shape):
    x, w, b, dy = drawn(shape)
    agree(LOOPS.forward(x, w, b), oracles.dense_forward(x, w, b))
    agree(LOOPS.backward_input(dy, w), oracles.dense_backward_input(dy, w))
    dw, db = LOOPS.backward_weights(x, dy)
    expected_dw, expected_db = oracles.dense_backward_weights(x, dy)
    agree(dw, expected_dw)
    agree(db, expected_db)


@ALL_SHAPES
def test_gradients_of_the_loops_are_the_slopes_of_their_output(shape):
    x, w, b, dy = drawn(shape)
    dw, db = LOOPS.backward_weights(x, dy)
    oracles.check_gradient(lambda x: float(np.vdot(dy, LOOPS.forward(x, w, b))), x, LOOPS.backward_input(dy, w))
    oracles.check_gradient(lambda w: float(np.vdot(dy, LOOPS.forward(x, w, b))), w, dw)
    oracles.check_gradient(lambda b: float(np.vdot(dy, LOOPS.forward(x, w, b))), b, db)


@BOTH
def test_weight_gradients_overwrite_what_is_there(kernels):
    x, _, _, dy = drawn((3, 9, 5), dtype="float32")
    dw, db = kernels.backward_weights(x, dy)  # written over NaN
    expected_dw, expected_db = oracles.dense_backward_weights(x, dy)
    np.testing.assert_allclose(dw, expected_dw, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(db, expected_db, rtol=1e-4, atol=1e-5)


def assert_within_rounding(fast, exact, magnitude, num_terms):
    """Assert |fast - exact| <= 1e-6 · sqrt(K) · sum|x||w|."""
    bound = 1e-6 * np.sqrt(num_terms) * magnitude
    error = np.abs(fast.astype(np.float64) - exact)
    worst = np.argmax(error - bound)
    assert (error <= bound).all(), f"off by {error.flat[worst]:.3g}, allowed are {bound.flat[worst]:.3g}"


def assert_fast_agrees_with_loops(shape, seed):
    N, D, E = shape
    x32, w32, b32, dy32 = drawn(shape, seed, "float32")
    dy32[np.random.default_rng(seed).random(dy32.shape) < 0.4] = 0  # as behind a ReLU
    x, w, b, dy = (a.astype(np.float64) for a in (x32, w32, b32, dy32))
    x_size, w_size, b_size, dy_size = (np.abs(a) for a in (x, w, b, dy))
    magnitude = LOOPS.forward(x_size, w_size, b_size)
    fast_y = FAST.forward(x32, w32, b32)
    assert_within_rounding(fast_y, LOOPS.forward(x, w, b), magnitude, D + 1)
    assert np.array_equal(FAST.forward(x32, w32, b32, rectified=True), np.maximum(fast_y, 0))
    magnitude = LOOPS.backward_input(dy_size, w_size)
    assert_within_rounding(FAST.backward_input(dy32, w32), LOOPS.backward_input(dy, w), magnitude, E)
    for fast, exact, magnitude in zip(
        FAST.backward_weights(x32, dy32),
        LOOPS.backward_weights(x, dy),
        LOOPS.backward_weights(x_size, dy_size),
        strict=True,
    ):
        assert_within_rounding(fast, exact, magnitude, N)


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
    dy[0, dy[0] < 0] = 0  # alone, half of the deltas are zero; of the batch, few are
    y, dx = kernels.forward(x, w, b), kernels.backward_input(dy, w)
    N = shape[0]
    for first, last in {(0, 1), (N // 2, N // 2 + 1), (N - 1, N), (N // 2, N)}:
        assert np.array_equal(kernels.forward(x[first:last], w, b), y[first:last])
        assert np.array_equal(kernels.backward_input(dy[first:last], w), dx[first:last])


@BOTH
@ALL_SHAPES
def test_results_have_the_same_bits_wherever_the_arrays_lie_in_memory(kernels, shape):
    x, w, b, dy = drawn(shape, dtype="float32")
    y, dx = kernels.forward(x, w, b), kernels.backward_input(dy, w)
    dw, db = kernels.backward_weights(x, dy)
    for offset in (1, 3, 8):
        y2, dx2 = kernels.forward(x, w, b, offset=offset), kernels.backward_input(dy, w, offset=offset)
        dw2, db2 = kernels.backward_weights(x, dy, offset=offset)
        for actual, expected in ((y2, y), (dx2, dx), (dw2, dw), (db2, db)):
            assert np.array_equal(actual, expected)


@BOTH
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_reaches_what_is_computed_from_it(kernels, bad):
    x, w, b, dy = drawn((5, 33, 17), dtype="float32")
    bad_x, bad_w, bad_b, bad_dy = (a.copy() for a in (x, w, b, dy))
    bad_x[2, 30] = bad_w[4, 7] = bad_b[4] = bad_dy[2, 4] = bad
    results = (
        kernels.forward(bad_x, w, b)[2],
        kernels.forward(x, bad_w, b)[:, 4],
        kernels.forward(x, w, bad_b)[:, 4],
        kernels.backward_input(bad_dy, w)[2],
        kernels.backward_input(dy, bad_w)[:, 7],
        kernels.backward_weights(bad_x, dy)[0][:, 30],
        kernels.backward_weights(x, bad_dy)[0][4],
        kernels.backward_weights(x, bad_dy)[1][4:5],
    )
    assert not any(np.isfinite(result).any() for result in results)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_relu_hides_no_value_that_is_not_finite(bad):
    for D in (3, 33):
        x, w = np.ones((2, D), np.float32), np.ones((5, D), np.float32)
        x[1, -1] = bad
        y = FAST.forward(x, w, np.zeros(5, np.float32), rectified=True)
        assert np.isfinite(y).tolist() == [[True] * 5, [False] * 5]
