"""Shapes: N examples; C, H, W channels, rows, columns; F filters; R, S filter rows, columns; P, Q outputs; I, J the
same after pooling; T tiles.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st

from partrain.kernels import loops_convolution
from tests.kernels import channels_last, oracles


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


REAL_SHAPES = {
    "article, first layer": Shapes(4, 1, 28, 28, 8, (5, 5)),
    "article, second layer": Shapes(4, 8, 24, 24, 8, (5, 5)),
    "LeNet-5, first layer": Shapes(4, 1, 28, 28, 6, (5, 5), (1, 1), (2, 2)),
    "LeNet-5, second layer": Shapes(3, 6, 14, 14, 16, (5, 5)),
    "ResNet, first layer": Shapes(1, 3, 33, 35, 16, (7, 7), (2, 2), (3, 3)),
    "one by one": Shapes(2, 32, 9, 9, 17, (1, 1)),
    "larger than the cache": Shapes(2, 32, 21, 23, 13, (3, 3), (1, 1), (1, 1)),
}


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
    loops_convolution.conv2d_forward(x, w, b, shapes.stride, shapes.padding, (1, 1), 1, y)
    return y


def _loops_backward_input(shapes, dy, w, offset=0):
    dx = oracles.unaligned(np.full(shapes.input, np.nan, dy.dtype), offset)
    dy, w = oracles.unaligned(dy, offset), oracles.unaligned(w, offset)
    loops_convolution.conv2d_backward_input(dy, w, shapes.stride, shapes.padding, (1, 1), 1, dx)
    return dx


def _loops_backward_weights(shapes, x, dy, offset=0):
    dw, db = (oracles.unaligned(np.zeros(size, x.dtype), offset) for size in (shapes.weight, shapes.F))
    x, dy = oracles.unaligned(x, offset), oracles.unaligned(dy, offset)
    loops_convolution.conv2d_backward_weights(x, dy, shapes.stride, shapes.padding, (1, 1), 1, dw, db)
    return dw, db


def _fast_forward(shapes, x, w, b, offset=0):
    return channels_last.conv2d_forward(x, w, b, shapes.stride, shapes.padding, offset=offset)


def backward_by_winners(shapes, x, w, dy, **options):
    return channels_last.conv2d_backward_winners(
        x, w, dy, dy, channels_last.every_place_wins(dy), shapes.stride, shapes.padding, dy.shape[2:],
        rectified=False, **{"tile": len(x), **options},
    )  # fmt: skip


def _winners_backward_input(shapes, dy, w, offset=0):
    return backward_by_winners(shapes, np.zeros(shapes.input, np.float32), w, dy, offset=offset)[2]


def _winners_backward_weights(shapes, x, dy, offset=0):
    w = np.zeros(shapes.weight, np.float32)
    (dw,), (db,), _ = backward_by_winners(shapes, x, w, dy, wants_dx=False, offset=offset)
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
