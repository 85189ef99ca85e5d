"""A convolution by itself: its loops against SciPy and finite differences, the stage's kernels against the loops.

Shapes: N examples; C, H, W input channels, rows, columns; F filters; R, S filter rows, columns; P, Q outputs.
"""

from __future__ import annotations

import numpy as np
import pytest

from partrain.config.schema.layers import Conv
from tests.kernels import oracles
from tests.network.stages.plain_convolutions import by_loops, by_stage, drawn, drawn_at_random

CASES = {
    "groups": (Conv(filters=6, kernel=[3, 2], groups=2, padding=1), (4, 7, 6)),
    "dilation": (Conv(filters=3, kernel=3, dilation=[2, 3], padding=[0, 2]), (2, 9, 8)),
    "depthwise": (Conv(filters=5, kernel=3, groups=5, stride=2, padding=1, bias=False), (5, 8, 9)),
    "several filters for a channel": (Conv(filters=6, kernel=2, groups=3, dilation=2, stride=[1, 2]), (3, 6, 7)),
    "Toom-Cook": (Conv(filters=17, kernel=3, padding=[0, 1]), (16, 11, 8)),
    "all of it": (Conv(filters=12, kernel=[2, 3], groups=3, dilation=[2, 1], stride=2, padding=2), (6, 5, 7)),
}
ALL_CASES = pytest.mark.parametrize(("description", "shape"), CASES.values(), ids=CASES)
SEEDS = range(60)


@ALL_CASES
def test_loops_agree_with_scipy(description, shape):
    case = drawn(description, shape, 0).in_float64()
    (w, b), actual = case.arrays, by_loops(case)
    stride, padding, dilation, groups = case.geometry
    spread = oracles.spread_filters(w, dilation, groups)
    agree = {"rtol": 1e-12, "atol": 1e-12}
    np.testing.assert_allclose(actual.y, oracles.conv2d_forward(case.x, spread, b, stride, padding), **agree)
    dx = oracles.conv2d_backward_input(case.dy, spread, stride, padding, case.x.shape)
    np.testing.assert_allclose(actual.dx, dx, **agree)
    dw, db = oracles.conv2d_backward_weights(case.x, case.dy, stride, padding, spread.shape)
    np.testing.assert_allclose(actual.dw.sum(axis=0), oracles.gathered_filters(dw, dilation, groups), **agree)
    np.testing.assert_allclose(actual.db.sum(axis=0), db if case.conv.has_bias else [], **agree)


@ALL_CASES
def test_gradients_of_the_loops_are_slopes(description, shape):
    case = drawn(description, shape, 0).in_float64()
    gradients = by_loops(case)

    def loss(**numbers):
        changed = case._replace(**numbers)
        return float((by_loops(changed).y * case.dy).sum())

    oracles.check_gradient(lambda x: loss(x=x), case.x, gradients.dx)
    gradient = np.zeros_like(case.parameters)
    views = case.network.parameters.views(gradient)
    for parameter, values in zip(case.conv.parameters, (gradients.dw, gradients.db), strict=False):
        views[parameter.name][...] = values.sum(axis=0)
    oracles.check_gradient(lambda parameters: loss(parameters=parameters), case.parameters, gradient)


def num_terms(case):
    """Return the number of terms of an output, of a number of dx, of dw, and of db."""
    _, C, R, S = case.conv.parameters[0].shape
    F, P, Q = case.conv.output_shape
    return C * R * S + 1, F // case.conv.groups * R * S, case.tile * P * Q, case.tile * P * Q


@pytest.mark.parametrize("first", SEEDS[::15])
def test_kernels_agree_with_the_loops_within_the_bound(first):
    """|fast - loops| <= 1e-6 · sqrt(K) · sum|x||w|, over random shapes."""
    for seed in range(first, first + 15):
        case = drawn_at_random(seed)
        exact, size = by_loops(case.in_float64()), by_loops(case.of_size())
        for name, actual, expected, sums, K in zip(
            exact._fields, by_stage(case), exact, size, num_terms(case), strict=True
        ):
            off = np.abs(actual - expected) - 1e-6 * np.sqrt(K) * sums
            assert (off <= 0).all(), f"case {seed} ({case.conv}): {name}"


@ALL_CASES
def test_an_example_has_the_same_bits_in_any_call_and_a_tile_in_any_position(description, shape):
    case = drawn(description, shape, 0)
    together = by_stage(case)
    for first in range(0, len(case.x), case.tile):
        part = slice(first, first + case.tile)
        alone = by_stage(case._replace(x=case.x[part], dy=case.dy[part]))
        assert np.array_equal(alone.y, together.y[part])
        assert np.array_equal(alone.dx, together.dx[part])
        assert np.array_equal(alone.dw[0], together.dw[first // case.tile])
        assert np.array_equal(alone.db[0], together.db[first // case.tile])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@ALL_CASES
def test_a_value_that_is_not_finite_reaches_what_is_computed_from_it(description, shape, bad):
    case = drawn(description, shape, 0)
    for name in ("x", "dy"):
        array = getattr(case, name).copy()
        array[1, 0, 2, 2] = bad
        results = by_stage(case._replace(**{name: array}))
        assert not np.isfinite(results.dw[0]).all()
        assert np.isfinite(results.dw[1]).all()
        assert not np.isfinite((results.y if name == "x" else results.dx)[1]).all()
        assert np.isfinite((results.y if name == "x" else results.dx)[0]).all()
