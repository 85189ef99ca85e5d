"""Shapes: N examples; C, H, W channels, rows, columns; F filters; R, S filter rows, columns; P, Q outputs; I, J the
same after pooling; T tiles.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partrain.kernels import convolution, convolution_backward, convolution_weights, loops, max_pool
from partrain.kernels.compiler.loading import load
from tests.kernels import channels_last, oracles


@pytest.fixture(scope="session", autouse=True)
def _loaded_kernels():
    of_loops = (loops.conv2d_forward, loops.conv2d_backward_input, loops.conv2d_backward_weights)
    load(of_loops, "float32")
    load(of_loops, "float64")
    fast = (
        convolution.pack_filters,
        convolution.conv2d_forward,
        convolution_backward.pack_patch_vectors,
        convolution_backward.conv2d_backward_winners,
        convolution_weights.conv2d_backward_weights,
        max_pool.max_pool_forward,
    )
    load(fast, "float32")


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


@st.composite
def random_shapes_for_vectors(draw):
    """Draw numbers of channels and filters on both sides of whole vectors too."""
    C = draw(st.one_of(st.integers(1, 5), st.sampled_from([6, 8, 9, 13, 16, 32])))
    F = draw(st.one_of(st.integers(1, 20), st.sampled_from([24, 31, 32, 33, 40])))
    return draw(random_shapes())._replace(C=C, F=F)


# The same examples in every run: a test that fails now and then is broken.
over_random_shapes = settings(deadline=None, derandomize=True, max_examples=100)


def drawn(shapes, seed=0, dtype="float64"):
    """Draw x, w, b and the gradient at the outputs."""
    rng = np.random.default_rng(seed)
    sizes = (shapes.input, shapes.weight, (shapes.F,), shapes.output)
    return tuple(rng.standard_normal(size).astype(dtype) for size in sizes)


class Kernels(NamedTuple):
    """The passes of a convolution without ReLU and pooling: of Shapes, the arrays, and where they lie in memory."""

    forward: Callable[..., Any]
    backward_input: Callable[..., Any]
    backward_weights: Callable[..., Any]


def _loops_forward(shapes, x, w, b, offset=0):
    y = oracles.unaligned(np.full(shapes.output, np.nan, x.dtype), offset)
    x, w, b = (oracles.unaligned(a, offset) for a in (x, w, b))
    loops.conv2d_forward(x, w, b, shapes.stride, shapes.padding, y)
    return y


def _loops_backward_input(shapes, dy, w, offset=0):
    dx = oracles.unaligned(np.full(shapes.input, np.nan, dy.dtype), offset)
    dy, w = oracles.unaligned(dy, offset), oracles.unaligned(w, offset)
    loops.conv2d_backward_input(dy, w, shapes.stride, shapes.padding, dx)
    return dx


def _loops_backward_weights(shapes, x, dy, offset=0):
    dw, db = (oracles.unaligned(np.zeros(size, x.dtype), offset) for size in (shapes.weight, shapes.F))
    x, dy = oracles.unaligned(x, offset), oracles.unaligned(dy, offset)
    loops.conv2d_backward_weights(x, dy, shapes.stride, shapes.padding, dw, db)
    return dw, db


def _fast_forward(shapes, x, w, b, offset=0):
    return channels_last.conv2d_forward(x, w, b, shapes.stride, shapes.padding, offset=offset)


def _by_winners(shapes, x, w, dy, **options):
    return channels_last.conv2d_backward_winners(
        x, w, dy, dy, channels_last.every_place_wins(dy), shapes.stride, shapes.padding, dy.shape[2:],
        rectified=False, **{"tile": len(x), **options},
    )  # fmt: skip


def _winners_backward_input(shapes, dy, w, offset=0):
    return _by_winners(shapes, np.zeros(shapes.input, np.float32), w, dy, offset=offset)[2]


def _winners_backward_weights(shapes, x, dy, offset=0):
    w = np.zeros(shapes.weight, np.float32)
    (dw,), (db,), _ = _by_winners(shapes, x, w, dy, wants_dx=False, offset=offset)
    return dw, db


def _every_place_backward_weights(shapes, x, dy, offset=0):
    (dw,), (db,) = channels_last.conv2d_backward_weights(
        x, dy, dy, shapes.kernel, shapes.stride, shapes.padding, rectified=False, tile=len(x), offset=offset
    )
    return dw, db


LOOPS = Kernels(_loops_forward, _loops_backward_input, _loops_backward_weights)
FAST = Kernels(_fast_forward, _winners_backward_input, _winners_backward_weights)
# What computes the gradient of the weights where most outputs have one.
FAST_EVERY_PLACE = FAST._replace(backward_weights=_every_place_backward_weights)
BOTH = pytest.mark.parametrize("kernels", [FAST, LOOPS], ids=["fast", "loops"])
ALL_WAYS = pytest.mark.parametrize(
    "kernels", [FAST, FAST_EVERY_PLACE, LOOPS], ids=["fast", "fast, every place", "loops"]
)


def agree(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


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
    loops.conv2d_backward_weights(x, dy, shapes.stride, shapes.padding, twice_dw, twice_db)
    agree(twice_dw, 2 * dw)
    agree(twice_db, 2 * db)


def assert_within_rounding(fast, exact, magnitude, num_terms):
    """Assert |fast - exact| <= 1e-6 · sqrt(K) · sum|x||w|."""
    bound = 1e-6 * np.sqrt(num_terms) * magnitude
    error = np.abs(fast.astype(np.float64) - exact)
    worst = np.argmax(error - bound)
    assert (error <= bound).all(), f"off by {error.flat[worst]:.3g}, allowed are {bound.flat[worst]:.3g}"


def assert_weight_gradients_agree(shapes, fast, x, dy, num_terms):
    """Hold the fast gradients (dw, db) against the loops on float64 x and dy."""
    exact = LOOPS.backward_weights(shapes, x, dy)
    magnitudes = LOOPS.backward_weights(shapes, np.abs(x), np.abs(dy))
    for fast_sum, exact_sum, magnitude in zip(fast, exact, magnitudes, strict=True):
        assert_within_rounding(fast_sum, exact_sum, magnitude, num_terms)


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


REAL_SHAPES = {
    "article, first layer": Shapes(4, 1, 28, 28, 8, (5, 5)),
    "article, second layer": Shapes(4, 8, 24, 24, 8, (5, 5)),
    "LeNet-5, first layer": Shapes(4, 1, 28, 28, 6, (5, 5), (1, 1), (2, 2)),
    "LeNet-5, second layer": Shapes(3, 6, 14, 14, 16, (5, 5)),
    "ResNet, first layer": Shapes(1, 3, 33, 35, 16, (7, 7), (2, 2), (3, 3)),
    "one by one": Shapes(2, 32, 9, 9, 17, (1, 1)),
    "larger than the cache": Shapes(2, 32, 21, 23, 13, (3, 3), (1, 1), (1, 1)),
}


@pytest.mark.parametrize("shapes", [*CASES.values(), *REAL_SHAPES.values()], ids=[*CASES, *REAL_SHAPES])
def test_fast_convolution_agrees_with_the_loops_on_shapes_of_real_networks_and_at_the_corners(shapes):
    assert_fast_agrees_with_loops(shapes, seed=0)


class Pooling(NamedTuple):
    window: tuple[int, int]
    stride: tuple[int, int]


@st.composite
def random_shapes_with_pooling(draw):
    shapes = draw(random_shapes_for_vectors())
    window = tuple(draw(st.integers(1, min(4, size))) for size in shapes.output[2:])
    return shapes, Pooling(window, draw(st.tuples(st.integers(1, 4), st.integers(1, 4))))


class Pooled:
    """The forward pass through convolution, ReLU or none, and pooling; and a gradient, a third of it zero, to take
    back.
    """

    def __init__(self, shapes, pooling, seed, rectified):
        self.shapes, self.rectified = shapes, rectified
        self.x, self.w, b, _ = drawn(shapes, seed, "float32")
        y = channels_last.conv2d_forward(self.x, self.w, b, shapes.stride, shapes.padding, rectified=rectified)
        self.pooled, self.winner = channels_last.max_pool_forward(y, pooling.window, pooling.stride)
        expected, places = oracles.max_pool_forward(y, pooling.window, pooling.stride)
        assert np.array_equal(self.pooled, expected)
        assert np.array_equal(self.winner, places)
        rng = np.random.default_rng(seed)
        self.dy = np.where(rng.random(places.shape) < 1 / 3, 0, rng.standard_normal(places.shape)).astype(np.float32)

    def taken_back(self, first=0, last=None, **options):
        """Return what the fast kernel makes of the examples `first` … `last`-1."""
        part = slice(first, last)
        arguments = self.x[part], self.w, self.dy[part], self.pooled[part], self.winner[part]
        shapes, rectified = self.shapes, self.rectified
        options = {"tile": len(arguments[0]), **options}
        return channels_last.conv2d_backward_winners(
            *arguments, shapes.stride, shapes.padding, shapes.output[2:], rectified=rectified, **options
        )

    def gradient_at_the_output(self, dy):
        """Return `dy` where it arrives behind pooling and ReLU, in float64."""
        arriving = np.where(self.pooled > 0, dy, 0) if self.rectified else dy
        return oracles.max_pool_backward_input(arriving.astype(np.float64), self.winner, self.shapes.output)


with_and_without_relu = pytest.mark.parametrize("rectified", [True, False], ids=["with ReLU", "without"])


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


@st.composite
def batches(draw, shapes):
    return draw(shapes)._replace(N=draw(st.integers(2, 9)))


def assert_bits_alone_are_those_of_any_batch(kernels, shapes, seed):
    x, w, b, dy = drawn(shapes, seed, "float32")
    y, dx = kernels.forward(shapes, x, w, b), kernels.backward_input(shapes, dy, w)
    for first, last in ((0, 1), (1, 2), (shapes.N - 1, shapes.N), (1, shapes.N)):
        some = shapes._replace(N=last - first)
        assert np.array_equal(kernels.forward(some, x[first:last], w, b), y[first:last])
        assert np.array_equal(kernels.backward_input(some, dy[first:last], w), dx[first:last])


@BOTH
@settings(deadline=None, derandomize=True, max_examples=100)
@given(shapes=batches(random_shapes()), seed=st.integers(0, 2**31))
def test_an_example_has_the_same_bits_alone_as_in_any_batch(kernels, shapes, seed):
    assert_bits_alone_are_those_of_any_batch(kernels, shapes, seed)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(shapes=batches(random_shapes_for_vectors()), seed=st.integers(0, 2**31))
def test_an_example_has_the_same_bits_alone_with_any_number_of_vectors(shapes, seed):
    assert_bits_alone_are_those_of_any_batch(FAST, shapes, seed)


@ALL_WAYS
@pytest.mark.parametrize("shapes", [CASES["rectangular"], *REAL_SHAPES.values()])
def test_results_have_the_same_bits_wherever_the_arrays_lie_in_memory(kernels, shapes):
    x, w, b, dy = drawn(shapes, dtype="float32")
    y, dx = kernels.forward(shapes, x, w, b), kernels.backward_input(shapes, dy, w)
    dw, db = kernels.backward_weights(shapes, x, dy)
    for offset in (1, 3, 8):
        y2, dx2 = kernels.forward(shapes, x, w, b, offset), kernels.backward_input(shapes, dy, w, offset)
        dw2, db2 = kernels.backward_weights(shapes, x, dy, offset)
        for actual, expected in ((y2, y), (dx2, dx), (dw2, dw), (db2, db)):
            assert np.array_equal(actual, expected)


@ALL_WAYS
@pytest.mark.parametrize("shapes", [CASES["rectangular"], REAL_SHAPES["LeNet-5, first layer"]])
def test_weight_gradients_depend_on_the_examples_of_the_tile_alone(kernels, shapes):
    x, _, _, dy = drawn(shapes._replace(N=3 * shapes.N), dtype="float32")
    for first in range(0, len(x), shapes.N):
        part = slice(first, first + shapes.N)
        inside = kernels.backward_weights(shapes, x[part], dy[part])
        alone = kernels.backward_weights(shapes, x[part].copy(), dy[part].copy())
        assert all(np.array_equal(a, b) for a, b in zip(inside, alone, strict=True))


@pytest.mark.parametrize("tile", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("shapes", [CASES["rectangular"], REAL_SHAPES["LeNet-5, second layer"]])
def test_every_tile_of_a_call_has_the_bits_of_a_call_of_its_own(shapes, tile):
    x, w, _, dy = drawn(shapes._replace(N=8), dtype="float32")
    dw, db, _ = _by_winners(shapes, x, w, dy, tile=tile)
    geometry = shapes.kernel, shapes.stride, shapes.padding
    dw_at_every_place, db_at_every_place = channels_last.conv2d_backward_weights(
        x, dy, dy, *geometry, rectified=False, tile=tile
    )
    assert len(dw) == len(dw_at_every_place) == -(-8 // tile)
    for t in range(len(dw)):
        part = slice(t * tile, (t + 1) * tile)
        some = shapes._replace(N=len(x[part]))
        alone = FAST.backward_weights(some, x[part], dy[part])
        alone_at_every_place = FAST_EVERY_PLACE.backward_weights(some, x[part], dy[part])
        assert all(np.array_equal(a, b) for a, b in zip(alone, (dw[t], db[t]), strict=True))
        expected = dw_at_every_place[t], db_at_every_place[t]
        assert all(np.array_equal(a, b) for a, b in zip(alone_at_every_place, expected, strict=True))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@ALL_WAYS
@pytest.mark.parametrize(
    "shapes", [CASES["rectangular"], *(REAL_SHAPES[k] for k in ("article, second layer", "LeNet-5, second layer"))]
)
def test_a_value_that_is_not_finite_reaches_what_is_computed_from_it(kernels, shapes, bad):
    x, w, b, dy = drawn(shapes, dtype="float32")
    bad_x, bad_w, bad_b, bad_dy = (a.copy() for a in (x, w, b, dy))
    bad_x[1, 1, 3, 4] = bad_w[1, 0, 1, 2] = bad_b[1] = bad_dy[1, 1, 2, 1] = bad
    results = (
        kernels.forward(shapes, bad_x, w, b)[1],
        kernels.forward(shapes, x, bad_w, b)[0, 1],
        kernels.forward(shapes, x, w, bad_b)[0, 1],
        kernels.backward_input(shapes, bad_dy, w)[1],
        kernels.backward_input(shapes, dy, bad_w)[0, 0],
        kernels.backward_weights(shapes, bad_x, dy)[0],
        kernels.backward_weights(shapes, x, bad_dy)[0][1],
        kernels.backward_weights(shapes, x, bad_dy)[1][1],
    )
    assert not any(np.isfinite(result).all() for result in results)
    # The other example knows nothing of it, nor does another filter.
    assert np.array_equal(kernels.forward(shapes, bad_x, w, b)[0], kernels.forward(shapes, x, w, b)[0])
    assert np.array_equal(kernels.forward(shapes, x, bad_w, b)[:, 0], kernels.forward(shapes, x, w, b)[:, 0])
    assert np.array_equal(kernels.backward_input(shapes, bad_dy, w)[0], kernels.backward_input(shapes, dy, w)[0])


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
