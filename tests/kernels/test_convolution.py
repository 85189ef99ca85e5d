"""Shapes: N examples; C, H, W channels, rows, columns; F filters; R, S filter rows, columns; P, Q outputs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partrain.kernels.compile_options import load
from partrain.kernels.kernel_set import kernel_set
from tests.kernels import oracles

FAST, LOOPS = kernel_set("fast"), kernel_set("loops")


@pytest.fixture(scope="session", autouse=True)
def _loaded_kernels():
    load(FAST, "float32")
    load(LOOPS, "float32")
    load(LOOPS, "float64")


class Shapes(NamedTuple):
    N: int
    C: int
    H: int
    W: int
    F: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)

    @property
    def input(self):
        return self.N, self.C, self.H, self.W

    @property
    def weight(self):
        return self.F, self.C, *self.kernel

    @property
    def output(self):
        return self.N, self.F, *oracles.num_positions((self.H, self.W), self.kernel, self.stride, self.padding)


CASES = {
    "article": Shapes(2, 1, 12, 12, 3, (5, 5)),
    "several channels": Shapes(2, 3, 9, 8, 4, (3, 3)),
    "rectangular": Shapes(2, 2, 9, 11, 3, (2, 4), (1, 2), (1, 0)),
    "rows and columns left over": Shapes(2, 2, 10, 9, 2, (3, 2), (4, 3)),
    "padding as large as the kernel": Shapes(1, 2, 4, 5, 2, (2, 3), (1, 1), (2, 3)),
    "padding larger than the kernel": Shapes(1, 2, 3, 4, 2, (2, 2), (1, 2), (4, 3)),
    "kernel larger than the input": Shapes(2, 2, 3, 2, 3, (5, 4), (1, 1), (1, 2)),
    "stride larger than the kernel": Shapes(2, 2, 11, 11, 2, (2, 2), (5, 3)),
    "stride larger than the input": Shapes(2, 2, 3, 3, 2, (2, 2), (7, 9), (1, 1)),
    "one pixel": Shapes(3, 2, 1, 1, 4, (1, 1)),
    "one output": Shapes(3, 2, 4, 5, 4, (4, 5)),
}
ALL_CASES = pytest.mark.parametrize("shapes", CASES.values(), ids=CASES)


@st.composite
def random_shapes(draw):
    small = st.integers(1, 5)
    kernel = draw(st.tuples(small, small))
    padding = draw(st.tuples(st.integers(0, 6), st.integers(0, 6)))
    # Often a number of rows that no vector's length divides.
    H, W = (draw(st.integers(max(1, kernel[k] - 2 * padding[k]), 23)) for k in range(2))
    N, C, F = draw(st.tuples(st.integers(1, 5), small, st.integers(1, 9)))
    return Shapes(N, C, H, W, F, kernel, draw(st.tuples(st.integers(1, 4), st.integers(1, 4))), padding)


# The same examples in every run: a test that fails now and then is broken.
over_random_shapes = settings(deadline=None, derandomize=True, max_examples=100)


def drawn(shapes, seed=0, dtype="float64"):
    """Draw x, w, b and the gradient at the outputs."""
    rng = np.random.default_rng(seed)
    sizes = (shapes.input, shapes.weight, (shapes.F,), shapes.output)
    return tuple(rng.standard_normal(size).astype(dtype) for size in sizes)


def forward(kernels, shapes, x, w, b):
    y = np.full(shapes.output, np.nan, x.dtype)
    kernels.conv2d_forward(x, w, b, shapes.stride, shapes.padding, y)
    return y


def backward_input(kernels, shapes, dy, w):
    dx = np.full(shapes.input, np.nan, dy.dtype)
    kernels.conv2d_backward_input(dy, w, shapes.stride, shapes.padding, dx)
    return dx


def backward_weights(kernels, shapes, x, dy):
    dw, db = np.zeros(shapes.weight, x.dtype), np.zeros(shapes.F, x.dtype)
    kernels.conv2d_backward_weights(x, dy, shapes.stride, shapes.padding, dw, db)
    return dw, db


def agree(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


@ALL_CASES
def test_loops_convolve_as_scipy_correlates(shapes):
    x, w, b, _ = drawn(shapes)
    agree(forward(LOOPS, shapes, x, w, b), oracles.conv2d_forward(x, w, b, shapes.stride, shapes.padding))


@ALL_CASES
def test_loops_take_the_gradient_to_the_input_as_scipy_convolves(shapes):
    _, w, _, dy = drawn(shapes)
    expected = oracles.conv2d_backward_input(dy, w, shapes.stride, shapes.padding, shapes.input)
    agree(backward_input(LOOPS, shapes, dy, w), expected)


@ALL_CASES
def test_loops_take_the_gradient_to_the_weights_as_scipy_correlates(shapes):
    x, _, _, dy = drawn(shapes)
    dw, db = oracles.conv2d_backward_weights(x, dy, shapes.stride, shapes.padding, shapes.weight)
    actual_dw, actual_db = backward_weights(LOOPS, shapes, x, dy)
    agree(actual_dw, dw)
    agree(actual_db, db)


@over_random_shapes
@given(shapes=random_shapes(), seed=st.integers(0, 2**31))
def test_loops_agree_with_scipy_over_random_shapes(shapes, seed):
    x, w, b, dy = drawn(shapes, seed)
    stride, padding = shapes.stride, shapes.padding
    agree(forward(LOOPS, shapes, x, w, b), oracles.conv2d_forward(x, w, b, stride, padding))
    expected_dx = oracles.conv2d_backward_input(dy, w, stride, padding, shapes.input)
    agree(backward_input(LOOPS, shapes, dy, w), expected_dx)
    expected_dw, expected_db = oracles.conv2d_backward_weights(x, dy, stride, padding, shapes.weight)
    dw, db = backward_weights(LOOPS, shapes, x, dy)
    agree(dw, expected_dw)
    agree(db, expected_db)


@ALL_CASES
def test_gradients_of_the_loops_are_the_slopes_of_their_output(shapes):
    x, w, b, dy = drawn(shapes, seed=1)

    def loss(x=x, w=w, b=b):
        return float(np.vdot(dy, forward(LOOPS, shapes, x, w, b)))

    dw, db = backward_weights(LOOPS, shapes, x, dy)
    oracles.check_gradient(lambda x: loss(x=x), x, backward_input(LOOPS, shapes, dy, w))
    oracles.check_gradient(lambda w: loss(w=w), w, dw)
    oracles.check_gradient(lambda b: loss(b=b), b, db)


@pytest.mark.parametrize("kernels", [FAST, LOOPS], ids=["fast", "loops"])
def test_weight_gradients_are_added_to_what_is_there(kernels):
    shapes = CASES["rectangular"]
    x, _, _, dy = drawn(shapes, dtype="float32")
    dw, db = backward_weights(kernels, shapes, x, dy)
    twice_dw, twice_db = dw.copy(), db.copy()
    kernels.conv2d_backward_weights(x, dy, shapes.stride, shapes.padding, twice_dw, twice_db)
    np.testing.assert_allclose(twice_dw, 2 * dw, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(twice_db, 2 * db, rtol=1e-4, atol=1e-5)


def assert_within_rounding(fast, loops, magnitude, num_terms):
    """Assert |fast - loops| <= 1e-6 · sqrt(K) · sum|x||w|."""
    bound = 1e-6 * np.sqrt(num_terms) * magnitude
    error = np.abs(fast.astype(np.float64) - loops)
    worst = np.argmax(error - bound)
    assert (error <= bound).all(), f"off by {error.flat[worst]:.3g}, allowed are {bound.flat[worst]:.3g}"


def assert_fast_agrees_with_loops(shapes, seed):
    fast = drawn(shapes, seed, "float32")
    exact = tuple(a.astype(np.float64) for a in fast)
    size = tuple(np.abs(a) for a in exact)
    (x32, w32, b32, dy32), (x, w, b, dy), (x_size, w_size, b_size, dy_size) = fast, exact, size
    (N, F, P, Q), (_, C, R, S) = shapes.output, shapes.weight
    assert_within_rounding(
        forward(FAST, shapes, x32, w32, b32),
        forward(LOOPS, shapes, x, w, b),
        forward(LOOPS, shapes, x_size, w_size, b_size),
        num_terms=C * R * S + 1,
    )
    assert_within_rounding(
        backward_input(FAST, shapes, dy32, w32),
        backward_input(LOOPS, shapes, dy, w),
        backward_input(LOOPS, shapes, dy_size, w_size),
        num_terms=F * R * S,
    )
    for fast_sum, loops_sum, magnitude in zip(
        backward_weights(FAST, shapes, x32, dy32),
        backward_weights(LOOPS, shapes, x, dy),
        backward_weights(LOOPS, shapes, x_size, dy_size),
        strict=True,
    ):
        assert_within_rounding(fast_sum, loops_sum, magnitude, num_terms=N * P * Q)


@over_random_shapes
@given(shapes=random_shapes(), seed=st.integers(0, 2**31))
def test_fast_convolution_agrees_with_the_loops_over_random_shapes(shapes, seed):
    assert_fast_agrees_with_loops(shapes, seed)


REAL_SHAPES = {
    "article, first layer": Shapes(4, 1, 28, 28, 8, (5, 5)),
    "article, second layer": Shapes(4, 8, 24, 24, 8, (5, 5)),
    "LeNet-5, first layer": Shapes(4, 1, 28, 28, 6, (5, 5), (1, 1), (2, 2)),
    "LeNet-5, second layer": Shapes(3, 6, 14, 14, 16, (5, 5)),
    "ResNet, first layer": Shapes(1, 3, 33, 35, 16, (7, 7), (2, 2), (3, 3)),
    "one by one": Shapes(2, 32, 9, 9, 17, (1, 1)),
}


@pytest.mark.parametrize("shapes", [*CASES.values(), *REAL_SHAPES.values()], ids=[*CASES, *REAL_SHAPES])
def test_fast_convolution_agrees_with_the_loops_on_shapes_of_real_networks_and_at_the_corners(shapes):
    assert_fast_agrees_with_loops(shapes, seed=0)


@st.composite
def batches(draw):
    return draw(random_shapes())._replace(N=draw(st.integers(2, 9)))


@pytest.mark.parametrize("kernels", [FAST, LOOPS], ids=["fast", "loops"])
@settings(deadline=None, derandomize=True, max_examples=60)
@given(shapes=batches(), seed=st.integers(0, 2**31))
def test_an_example_has_the_same_bits_alone_as_in_any_batch(kernels, shapes, seed):
    x, w, b, dy = drawn(shapes, seed, "float32")
    y, dx = forward(kernels, shapes, x, w, b), backward_input(kernels, shapes, dy, w)
    for first, last in ((0, 1), (1, 2), (shapes.N - 1, shapes.N), (1, shapes.N)):
        some = shapes._replace(N=last - first)
        assert np.array_equal(forward(kernels, some, x[first:last], w, b), y[first:last])
        assert np.array_equal(backward_input(kernels, some, dy[first:last], w), dx[first:last])


@pytest.mark.parametrize("kernels", [FAST, LOOPS], ids=["fast", "loops"])
@pytest.mark.parametrize("shapes", [CASES["rectangular"], *REAL_SHAPES.values()])
def test_results_have_the_same_bits_wherever_the_arrays_lie_in_memory(kernels, shapes):
    x, w, b, dy = drawn(shapes, dtype="float32")
    y, dx = forward(kernels, shapes, x, w, b), backward_input(kernels, shapes, dy, w)
    dw, db = backward_weights(kernels, shapes, x, dy)
    for offset in (1, 3, 8):
        x2, w2, b2, dy2 = (oracles.unaligned(a, offset) for a in (x, w, b, dy))
        y2, dx2 = oracles.unaligned(np.empty_like(y), offset), oracles.unaligned(np.empty_like(dx), offset)
        dw2, db2 = oracles.unaligned(np.zeros_like(dw), offset), oracles.unaligned(np.zeros_like(db), offset)
        kernels.conv2d_forward(x2, w2, b2, shapes.stride, shapes.padding, y2)
        kernels.conv2d_backward_input(dy2, w2, shapes.stride, shapes.padding, dx2)
        kernels.conv2d_backward_weights(x2, dy2, shapes.stride, shapes.padding, dw2, db2)
        for actual, expected in ((y2, y), (dx2, dx), (dw2, dw), (db2, db)):
            assert np.array_equal(actual, expected)


@pytest.mark.parametrize("kernels", [FAST, LOOPS], ids=["fast", "loops"])
@pytest.mark.parametrize("shapes", [CASES["rectangular"], REAL_SHAPES["LeNet-5, first layer"]])
def test_weight_gradients_depend_on_the_examples_of_the_tile_alone(kernels, shapes):
    x, _, _, dy = drawn(shapes._replace(N=3 * shapes.N), dtype="float32")
    for first in range(0, len(x), shapes.N):
        part = slice(first, first + shapes.N)
        inside = backward_weights(kernels, shapes, x[part], dy[part])
        alone = backward_weights(kernels, shapes, x[part].copy(), dy[part].copy())
        assert all(np.array_equal(a, b) for a, b in zip(inside, alone, strict=True))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kernels", [FAST, LOOPS], ids=["fast", "loops"])
@pytest.mark.parametrize("shapes", [CASES["rectangular"], REAL_SHAPES["article, second layer"]])
def test_a_value_that_is_not_finite_reaches_what_is_computed_from_it(kernels, shapes, bad):
    x, w, b, dy = drawn(shapes, dtype="float32")
    bad_x, bad_w, bad_b, bad_dy = (a.copy() for a in (x, w, b, dy))
    bad_x[1, 1, 3, 4] = bad_w[1, 0, 1, 2] = bad_b[1] = bad_dy[1, 1, 2, 1] = bad
    results = (
        forward(kernels, shapes, bad_x, w, b)[1],
        forward(kernels, shapes, x, bad_w, b)[0, 1],
        forward(kernels, shapes, x, w, bad_b)[0, 1],
        backward_input(kernels, shapes, bad_dy, w)[1],
        backward_input(kernels, shapes, dy, bad_w)[0, 0],
        backward_weights(kernels, shapes, bad_x, dy)[0],
        backward_weights(kernels, shapes, x, bad_dy)[0][1],
        backward_weights(kernels, shapes, x, bad_dy)[1][1],
    )
    assert not any(np.isfinite(result).all() for result in results)
    # The other example knows nothing of it.
    assert np.array_equal(forward(kernels, shapes, bad_x, w, b)[0], forward(kernels, shapes, x, w, b)[0])
