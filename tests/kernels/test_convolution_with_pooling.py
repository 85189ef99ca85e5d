"""Shapes: N examples; C, H, W channels, rows, columns; F filters; R, S filter rows, columns; P, Q outputs; I, J the
same after pooling; T tiles.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partrain.kernels.simd.vectors import LANES
from tests.kernels import channels_last
from tests.kernels.convolutions import (
    CASES,
    LOOPS,
    REAL_SHAPES,
    Pooled,
    Pooling,
    Shapes,
    assert_weight_gradients_agree,
    assert_within_rounding,
    drawn,
    random_shapes_for_vectors,
    random_shapes_with_pooling,
    with_and_without_relu,
)

pytestmark = pytest.mark.usefixtures("convolution_kernels")


def assert_gradients_of_winners_agree(shapes, pooling, seed, rectified):
    pooled = Pooled(shapes, pooling, seed, rectified)
    x, w = pooled.x.astype(np.float64), pooled.w.astype(np.float64)
    dy, dy_size = (pooled.gradient_at_the_output(a) for a in (pooled.dy, np.abs(pooled.dy)))
    (dw,), (db,), dx = pooled.taken_back()
    num_terms = pooled.dy[:, 0].size
    exact, magnitudes = (
        LOOPS.backward_weights(shapes, a, b) for a, b in ((x, dy), (np.abs(x), dy_size))
    )  # fmt: skip
    for fast_sum, exact_sum, magnitude in zip((dw, db), exact, magnitudes, strict=True):
        assert_within_rounding(fast_sum, exact_sum, magnitude, num_terms)
    # An output that wins in several windows has their gradients.
    windows = np.prod([-(-pooling.window[k] // pooling.stride[k]) for k in range(2)])
    assert_within_rounding(
        dx,
        LOOPS.backward_input(shapes, dy, w),
        LOOPS.backward_input(shapes, dy_size, np.abs(w)),
        num_terms=shapes.F * np.prod(shapes.kernel) * windows,
    )


@with_and_without_relu
@settings(deadline=None, derandomize=True, max_examples=100)
@given(shapes_and_pooling=random_shapes_with_pooling(), seed=st.integers(0, 2**31))
def test_fast_gradients_behind_pooling_agree_with_the_loops_over_random_shapes(rectified, shapes_and_pooling, seed):
    assert_gradients_of_winners_agree(*shapes_and_pooling, seed, rectified)


POOLED_SHAPES = {
    "article": (REAL_SHAPES["article, second layer"], Pooling((2, 2), (2, 2))),
    "LeNet-5, first layer": (REAL_SHAPES["LeNet-5, first layer"], Pooling((2, 2), (2, 2))),
    "LeNet-5, second layer": (REAL_SHAPES["LeNet-5, second layer"], Pooling((2, 2), (2, 2))),
    "ResNet, first layer": (REAL_SHAPES["ResNet, first layer"], Pooling((3, 3), (2, 2))),
    "larger than the cache": (REAL_SHAPES["larger than the cache"], Pooling((3, 2), (1, 1))),
    "rows left over": (REAL_SHAPES["LeNet-5, second layer"], Pooling((3, 3), (3, 3))),
    "one window": (CASES["rectangular"], Pooling((10, 4), (1, 1))),
}
ALL_POOLED_SHAPES = pytest.mark.parametrize(
    ("shapes", "pooling"), POOLED_SHAPES.values(), ids=POOLED_SHAPES
)  # fmt: skip


@with_and_without_relu
@ALL_POOLED_SHAPES
def test_fast_gradients_behind_pooling_agree_with_the_loops_on_shapes_of_real_networks(shapes, pooling, rectified):
    assert_gradients_of_winners_agree(shapes, pooling, 0, rectified)


@with_and_without_relu
@settings(deadline=None, derandomize=True, max_examples=50)
@given(shapes=random_shapes_for_vectors(), seed=st.integers(0, 2**31))
def test_fast_gradients_of_the_weights_at_every_place_stop_where_relu_does(rectified, shapes, seed):
    x, w, b, dy = drawn(shapes, seed, "float32")
    y = channels_last.conv2d_forward(x, w, b, shapes.stride, shapes.padding, rectified=rectified)
    (dw,), (db,) = channels_last.conv2d_backward_weights(
        x, y, dy, shapes.kernel, shapes.stride, shapes.padding, rectified=rectified, tile=shapes.N
    )
    arriving = (np.where(y > 0, dy, 0) if rectified else dy).astype(np.float64)
    assert_weight_gradients_agree(shapes, (dw, db), x.astype(np.float64), arriving, dy[:, 0].size)


@with_and_without_relu
@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    shapes_and_pooling=random_shapes_with_pooling(),
    seed=st.integers(0, 2**31),
    num_examples=st.integers(2, 9),
    tile=st.integers(1, 5),
)
def test_bits_behind_pooling_depend_neither_on_the_call_nor_on_the_layout(
    rectified, shapes_and_pooling, seed, num_examples, tile
):
    shapes, pooling = shapes_and_pooling
    pooled = Pooled(shapes._replace(N=num_examples), pooling, seed, rectified)
    dw, db, dx = pooled.taken_back(tile=tile)
    for t, first in enumerate(range(0, num_examples, tile)):
        (dw_alone,), (db_alone,), dx_alone = pooled.taken_back(first, first + tile)
        assert np.array_equal(dw_alone, dw[t])
        assert np.array_equal(db_alone, db[t])
        assert np.array_equal(dx_alone, dx[first : first + tile])
    for n in range(num_examples):
        assert np.array_equal(pooled.taken_back(n, n + 1)[2], dx[n : n + 1])
    flattened = pooled.taken_back(tile=tile, flattened=True)
    assert all(np.array_equal(a, b) for a, b in zip(flattened, (dw, db, dx), strict=True))
    without_dx = pooled.taken_back(tile=tile, wants_dx=False)
    assert np.array_equal(without_dx[0], dw)
    assert np.array_equal(without_dx[1], db)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("num_filters", [3, 8, 19])
def test_neither_relu_nor_pooling_hides_a_value_that_is_not_finite(num_filters, bad):
    shapes = Shapes(2, 2, 6, 6, num_filters, (3, 3))
    x, w, b, _ = drawn(shapes, dtype="float32")
    x[1, 0, 2, 2], w[0, 0] = bad, 1  # nine outputs see it, and each of the four windows one of them
    y = channels_last.conv2d_forward(x, w, b, shapes.stride, shapes.padding, rectified=True)
    pooled, _ = channels_last.max_pool_forward(y, (2, 2), (2, 2))
    assert np.isfinite(y[0]).all()
    assert not np.isfinite(y[1, 0, :3, :3]).any()
    assert not np.isfinite(pooled[1, 0]).any()
    if np.isnan(bad):
        assert np.isnan(y[1, :, :3, :3]).all()
        assert np.isnan(pooled[1]).all()


@with_and_without_relu
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("num_filters", [3, 8, 19])
def test_a_gradient_that_is_not_finite_goes_through_relu_and_pooling(rectified, num_filters, bad):
    shapes = Shapes(2, 2, 6, 6, num_filters, (3, 3))
    pooled = Pooled(shapes, Pooling((2, 2), (2, 2)), 0, rectified)
    n, i, j = (int(k) for k in np.argwhere(pooled.pooled[:, 1] > 0)[-1])
    (good_dw,), _, _ = pooled.taken_back()
    pooled.dy[n, 1, i, j] = bad
    (dw,), (db,), dx = pooled.taken_back()
    assert not np.isfinite(db[1])
    assert not np.isfinite(dw[1]).any()
    assert not np.isfinite(dx[n]).all()
    assert np.array_equal(dw[0], good_dw[0])
    assert np.isfinite(dx[1 - n]).all()
    (dw,), (db,) = channels_last.conv2d_backward_weights(
        pooled.x, np.ones(shapes.output, np.float32), np.full(shapes.output, bad, np.float32), shapes.kernel,
        shapes.stride, shapes.padding, rectified=rectified, tile=2,
    )  # fmt: skip
    assert not np.isfinite(dw).any()
    assert not np.isfinite(db).any()


@st.composite
def shapes_with_one_channel(draw):
    R, S = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    padding = draw(st.integers(0, R - 1)), draw(st.integers(0, S - 1))
    P, Q = draw(st.integers(2, 12)), draw(st.integers(2 * LANES, 2 * LANES + 21))
    H, W = max(1, P + R - 1 - 2 * padding[0]), Q + S - 1 - 2 * padding[1]
    return Shapes(draw(st.integers(1, 3)), 1, H, W, draw(st.integers(1, 20)), (R, S), padding=padding)


@with_and_without_relu
@settings(deadline=None, derandomize=True, max_examples=60)
@given(shapes=shapes_with_one_channel(), seed=st.integers(0, 2**31))
def test_one_channel_pooled_at_once_has_the_bits_of_a_convolution_and_a_pooling(rectified, shapes, seed):
    x, w, b, _ = drawn(shapes, seed, "float32")
    x[0, 0, -1, -1] = [np.nan, 1, 0][seed % 3]
    w[::2] = np.round(w[::2])  # so that outputs are equal
    x = np.round(x)
    outputs = channels_last.conv2d_forward(x, w, b, (1, 1), shapes.padding, rectified)
    expected = channels_last.max_pool_forward(outputs, (2, 2), (2, 2))
    actual = channels_last.plane_forward(x, w, b, shapes.padding, rectified)
    for array, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(array, other)
