"""Shapes: N examples; C, H, W channels, rows, columns; F filters; R, S filter rows, columns; P, Q outputs; I, J the
same after pooling; T tiles.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels import channels_last
from tests.kernels.convolutions import (
    ALL_WAYS,
    BOTH,
    CASES,
    FAST,
    FAST_EVERY_PLACE,
    REAL_SHAPES,
    backward_by_winners,
    drawn,
    random_shapes,
    random_shapes_for_vectors,
)

pytestmark = pytest.mark.usefixtures("convolution_kernels")


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
    dw, db, _ = backward_by_winners(shapes, x, w, dy, tile=tile)
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
