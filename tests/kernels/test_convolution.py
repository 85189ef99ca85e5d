"""Shapes: N examples; C, H, W channels, rows, columns; F filters; R, S filter rows, columns; P, Q outputs; I, J the
same after pooling; T tiles.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partrain.kernels import loops_convolution
from tests.kernels import channels_last, oracles
from tests.kernels.convolutions import (
    CASES,
    FAST,
    FAST_EVERY_PLACE,
    LOOPS,
    REAL_SHAPES,
    agree,
    assert_weight_gradients_agree,
    assert_within_rounding,
    drawn,
    over_random_shapes,
    random_shapes,
    random_shapes_for_vectors,
)

pytestmark = pytest.mark.usefixtures("convolution_kernels")

ALL_CASES = pytest.mark.parametrize("shapes", CASES.values(), ids=CASES)


@ALL_CASES
def test_loops_convolve_as_scipy_correlates(shapes):
    x, w, b, _ = drawn(shapes)
    agree(LOOPS.forward(shapes, x, w, b), oracles.conv2d_forward(x, w, b, shapes.stride, shapes.padding))


@ALL_CASES
def test_loops_take_the_gradient_to_the_input_as_scipy_convolves(shapes):
    _, w, _, dy = drawn(shapes)
    expected = oracles.conv2d_backward_input(dy, w, shapes.stride, shapes.padding, shapes.input)
    agree(LOOPS.backward_input(shapes, dy, w), expected)


@ALL_CASES
def test_loops_take_the_gradient_to_the_weights_as_scipy_correlates(shapes):
    x, _, _, dy = drawn(shapes)
    dw, db = oracles.conv2d_backward_weights(x, dy, shapes.stride, shapes.padding, shapes.weight)
    actual_dw, actual_db = LOOPS.backward_weights(shapes, x, dy)
    agree(actual_dw, dw)
    agree(actual_db, db)


@over_random_shapes
@given(shapes=random_shapes(), seed=st.integers(0, 2**31))
def test_loops_agree_with_scipy_over_random_shapes(shapes, seed):
    x, w, b, dy = drawn(shapes, seed)
    stride, padding = shapes.stride, shapes.padding
    agree(LOOPS.forward(shapes, x, w, b), oracles.conv2d_forward(x, w, b, stride, padding))
    expected_dx = oracles.conv2d_backward_input(dy, w, stride, padding, shapes.input)
    agree(LOOPS.backward_input(shapes, dy, w), expected_dx)
    expected_dw, expected_db = oracles.conv2d_backward_weights(x, dy, stride, padding, shapes.weight)
    dw, db = LOOPS.backward_weights(shapes, x, dy)
    agree(dw, expected_dw)
    agree(db, expected_db)


@ALL_CASES
def test_gradients_of_the_loops_are_the_slopes_of_their_output(shapes):
    x, w, b, dy = drawn(shapes, seed=1)

    def loss(x=x, w=w, b=b):
        return float(np.vdot(dy, LOOPS.forward(shapes, x, w, b)))

    dw, db = LOOPS.backward_weights(shapes, x, dy)
    oracles.check_gradient(lambda x: loss(x=x), x, LOOPS.backward_input(shapes, dy, w))
    oracles.check_gradient(lambda w: loss(w=w), w, dw)
    oracles.check_gradient(lambda b: loss(b=b), b, db)


def test_weight_gradients_of_the_loops_are_added_to_what_is_there():
    shapes = CASES["rectangular"]
    x, _, _, dy = drawn(shapes)
    dw, db = LOOPS.backward_weights(shapes, x, dy)
    twice_dw, twice_db = dw.copy(), db.copy()
    loops_convolution.conv2d_backward_weights(x, dy, shapes.stride, shapes.padding, (1, 1), 1, twice_dw, twice_db)
    agree(twice_dw, 2 * dw)
    agree(twice_db, 2 * db)


def assert_fast_agrees_with_loops(shapes, seed):
    fast = drawn(shapes, seed, "float32")
    exact = tuple(a.astype(np.float64) for a in fast)
    size = tuple(np.abs(a) for a in exact)
    (x32, w32, b32, dy32), (x, w, b, dy), (x_size, w_size, b_size, dy_size) = fast, exact, size
    (N, F, P, Q), (_, C, R, S) = shapes.output, shapes.weight
    y = LOOPS.forward(shapes, x, w, b)
    magnitude = LOOPS.forward(shapes, x_size, w_size, b_size)
    fast_y = FAST.forward(shapes, x32, w32, b32)
    assert_within_rounding(fast_y, y, magnitude, num_terms=C * R * S + 1)
    rectified = channels_last.conv2d_forward(x32, w32, b32, shapes.stride, shapes.padding, rectified=True)
    assert np.array_equal(rectified, np.maximum(fast_y, 0))
    assert_within_rounding(
        FAST.backward_input(shapes, dy32, w32),
        LOOPS.backward_input(shapes, dy, w),
        LOOPS.backward_input(shapes, dy_size, w_size),
        num_terms=F * R * S,
    )
    for kernels in (FAST, FAST_EVERY_PLACE):
        assert_weight_gradients_agree(shapes, kernels.backward_weights(shapes, x32, dy32), x, dy, N * P * Q)


@over_random_shapes
@given(shapes=random_shapes_for_vectors(), seed=st.integers(0, 2**31))
def test_fast_convolution_agrees_with_the_loops_over_random_shapes(shapes, seed):
    assert_fast_agrees_with_loops(shapes, seed)


@pytest.mark.parametrize("shapes", [*CASES.values(), *REAL_SHAPES.values()], ids=[*CASES, *REAL_SHAPES])
def test_fast_convolution_agrees_with_the_loops_on_shapes_of_real_networks_and_at_the_corners(shapes):
    assert_fast_agrees_with_loops(shapes, seed=0)
