"""Shapes: N examples; C, H, W channels, rows, columns; F filters; R, S filter rows, columns; P, Q outputs; I, J the
same after pooling.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from tests.kernels import channels_last, oracles
from tests.kernels.convolutions import (
    LOOPS,
    Shapes,
    assert_within_rounding,
    drawn,
    over_random_shapes,
    with_and_without_relu,
)

pytestmark = pytest.mark.usefixtures("toom_cook_kernels")

REAL_SHAPES = {
    "article, second layer": Shapes(4, 8, 24, 24, 8, (5, 5)),
    "LeNet-5, second layer": Shapes(3, 6, 14, 14, 16, (5, 5)),
    "one row of filters": Shapes(2, 17, 6, 40, 5, (1, 5), padding=(0, 2)),
    "more tiles than stay in the cache": Shapes(1, 9, 60, 44, 3, (3, 5)),
    "padded": Shapes(5, 16, 15, 14, 32, (3, 3), padding=(1, 1)),
    "many channels": Shapes(2, 64, 9, 8, 40, (3, 3), padding=(1, 1)),
    "more examples than stay in the cache": Shapes(7, 8, 30, 19, 17, (3, 3)),
    "four outputs": Shapes(3, 8, 6, 6, 8, (3, 3)),
}
ALL_SHAPES = pytest.mark.parametrize("shapes", REAL_SHAPES.values(), ids=REAL_SHAPES)


@st.composite
def random_shapes(draw):
    """Draw shapes that network.stages.convolution_passes may compute by Toom-Cook."""
    kernel = draw(st.sampled_from([(1, 5), (2, 5), (7, 5), (5, 5), (5, 5), (5, 5), (3, 3), (3, 3)]))
    padding = tuple(draw(st.integers(0, size // 2)) for size in kernel)
    H, W = (draw(st.integers(4, 27)) + kernel[k] - 1 - 2 * padding[k] for k in range(2))
    least = 8 if kernel == (5, 5) else -(-72 // (kernel[0] * kernel[1]))
    C = draw(st.one_of(st.integers(least, least + 9), st.sampled_from([16, 17, 32])))
    F = draw(st.one_of(st.integers(1, 20), st.sampled_from([24, 31, 32, 33])))
    return Shapes(draw(st.integers(1, 4)), max(C, least), max(H, 1), max(W, 1), F, kernel, padding=padding)


def assert_agrees_with_loops(shapes, seed, rectifies_inputs, one_dimension=False):
    x, w, b, _ = drawn(shapes, seed, "float32")
    if rectifies_inputs:
        x = np.maximum(x, 0)
    exact = tuple(a.astype(np.float64) for a in (x, w, b))
    y = channels_last.toom_cook_forward(x, w, b, shapes.padding, one_dimension=one_dimension)
    magnitude = LOOPS.forward(shapes, *map(np.abs, exact))
    assert_within_rounding(y, LOOPS.forward(shapes, *exact), magnitude, num_terms=w[0].size + 1)
    rectified = channels_last.toom_cook_forward(x, w, b, shapes.padding, rectified=True, one_dimension=one_dimension)
    assert np.array_equal(rectified, np.maximum(y, 0))


@over_random_shapes
@given(shapes=random_shapes(), seed=st.integers(0, 2**31), rectifies_inputs=st.booleans())
def test_toom_cook_agrees_with_the_loops_over_random_shapes(shapes, seed, rectifies_inputs):
    assert_agrees_with_loops(shapes, seed, rectifies_inputs)


@ALL_SHAPES
def test_toom_cook_agrees_with_the_loops_on_shapes_of_real_networks(shapes):
    assert_agrees_with_loops(shapes, 0, rectifies_inputs=False)


@pytest.mark.parametrize("name", ["article, second layer", "LeNet-5, second layer"])
def test_filters_of_5x5_in_one_dimension_agree_with_the_loops(name):
    assert_agrees_with_loops(REAL_SHAPES[name], 0, rectifies_inputs=True, one_dimension=True)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(shapes=random_shapes(), seed=st.integers(0, 2**31))
def test_an_output_whose_own_inputs_are_zeros_shares_the_rounding_of_its_tile_alone(shapes, seed):
    """The bound holds for the largest sum |x||w| among the outputs that may be in its tile."""
    x, w, b, _ = drawn(shapes, seed, "float32")
    x *= np.random.default_rng(seed).random(x.shape[2:]) < 0.2  # of all channels: many patches are zeros
    exact = tuple(a.astype(np.float64) for a in (x, w, b))
    y = channels_last.toom_cook_forward(x, w, b, shapes.padding)
    reach = (7, 7) if shapes.kernel in ((3, 3), (5, 5)) else (1, 7)
    magnitude = ndimage.maximum_filter(LOOPS.forward(shapes, *map(np.abs, exact)), (1, 1, *reach))
    assert_within_rounding(y, LOOPS.forward(shapes, *exact), magnitude, num_terms=w[0].size + 1)


def assert_fused_pooling_is_pooling(shapes, seed, rectified):
    """Rows and columns that fill no window move the tiles, so compare where all are in windows."""
    _, _, P, Q = shapes.output
    x, w, b, _ = drawn(shapes._replace(H=shapes.H - P % 2, W=shapes.W - Q % 2), seed, "float32")
    arguments = x, w, b, shapes.padding, rectified
    y = channels_last.toom_cook_forward(*arguments)
    pooled, winner = channels_last.toom_cook_forward(*arguments, pools=True)
    expected, places = oracles.max_pool_forward(y, (2, 2), (2, 2))
    assert np.array_equal(pooled, expected)
    assert np.array_equal(winner, places)


@with_and_without_relu
@settings(deadline=None, derandomize=True, max_examples=40)
@given(shapes=random_shapes().filter(lambda shapes: min(shapes.output[2:]) > 4), seed=st.integers(0, 2**31))
def test_maxima_and_winners_are_those_of_the_outputs(rectified, shapes, seed):
    assert_fused_pooling_is_pooling(shapes, seed, rectified)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(shapes=random_shapes().filter(lambda shapes: min(shapes.output[2:]) > 4), seed=st.integers(0, 2**31))
def test_rows_and_columns_that_fill_no_window_change_maxima_by_rounding_alone(shapes, seed):
    x, w, b, _ = drawn(shapes, seed, "float32")
    pooled, winner = channels_last.toom_cook_forward(x, w, b, shapes.padding, pools=True)
    exact = LOOPS.forward(shapes, *(a.astype(np.float64) for a in (x, w, b)))
    magnitude = LOOPS.forward(shapes, *(np.abs(a.astype(np.float64)) for a in (x, w, b)))
    N, F, I, J = pooled.shape
    outputs, magnitudes = (
        np.take_along_axis(a.reshape(N, F, -1), winner.reshape(N, F, -1), axis=2).reshape(pooled.shape)
        for a in (exact, magnitude)
    )
    assert_within_rounding(pooled, outputs, magnitudes, num_terms=w[0].size + 1)
    p, q = np.divmod(winner, shapes.output[3])
    assert np.array_equal(p // 2, np.broadcast_to(np.arange(I)[:, None], p.shape))
    assert np.array_equal(q // 2, np.broadcast_to(np.arange(J), q.shape))


@settings(deadline=None, derandomize=True, max_examples=40)
@given(shapes=random_shapes(), seed=st.integers(0, 2**31), num_examples=st.integers(2, 9))
def test_an_example_has_the_same_bits_alone_as_in_any_batch(shapes, seed, num_examples):
    x, w, b, _ = drawn(shapes._replace(N=num_examples), seed, "float32")
    y = channels_last.toom_cook_forward(x, w, b, shapes.padding)
    for first, last in ((0, 1), (num_examples - 1, num_examples), (1, num_examples)):
        assert np.array_equal(channels_last.toom_cook_forward(x[first:last], w, b, shapes.padding), y[first:last])


@ALL_SHAPES
def test_results_have_the_same_bits_wherever_the_arrays_lie_in_memory(shapes):
    x, w, b, _ = drawn(shapes, dtype="float32")
    y = channels_last.toom_cook_forward(x, w, b, shapes.padding)
    pooled = channels_last.toom_cook_forward(x, w, b, shapes.padding, pools=True)
    for offset in (1, 3, 8):
        assert np.array_equal(channels_last.toom_cook_forward(x, w, b, shapes.padding, offset=offset), y)
        again = channels_last.toom_cook_forward(x, w, b, shapes.padding, offset=offset, pools=True)
        assert all(np.array_equal(a, b) for a, b in zip(again, pooled, strict=True))


@pytest.mark.parametrize("pools", [False, True])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["article, second layer", "padded"])
def test_a_value_that_is_not_finite_reaches_its_outputs_and_neither_other_examples_nor_other_filters(name, bad, pools):
    shapes = REAL_SHAPES[name]
    x, w, b, _ = drawn(shapes, dtype="float32")
    bad_x, bad_w, bad_b = (a.copy() for a in (x, w, b))
    bad_x[1, 1, 6, 7] = bad_w[3, 0, 1, 2] = bad_b[3] = bad

    def forward(x, w, b):
        results = channels_last.toom_cook_forward(x, w, b, shapes.padding, pools=pools)
        return results[0] if pools else results

    y = forward(x, w, b)
    spoilt = forward(bad_x, w, b)
    place = (3, 3) if pools else (6, 7)
    assert not np.isfinite(spoilt[(1, slice(None), *place)]).any()
    assert np.array_equal(spoilt[[0, 2, 3]], y[[0, 2, 3]])
    others = [f for f in range(shapes.F) if f != 3]
    for spoilt in (forward(x, bad_w, b), forward(x, w, bad_b)):
        assert not np.isfinite(spoilt[:, 3]).any()
        assert np.array_equal(spoilt[:, others], y[:, others])
