"""Shapes: N examples; C, H, W channels, rows, columns; P, Q outputs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from partrain.kernels import avg_pool, loops_pooling
from partrain.kernels.compiler.loading import load
from tests.kernels import oracles
from tests.kernels.channels_last import assert_nothing_was_written_around, channels_first, channels_last, spoilt


class Case(NamedTuple):
    shape: tuple[int, int, int, int]
    window: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)

    @property
    def output(self):
        return *self.shape[:2], *oracles.num_positions(self.shape[2:], *self[1:])


CASES = {
    "windows that cover the image": Case((2, 3, 6, 8), (2, 4), (2, 4)),
    "rows and columns left over": Case((2, 9, 7, 8), (2, 3), (2, 3)),
    "overlapping": Case((2, 8, 7, 8), (3, 2), (1, 1)),
    "padded": Case((3, 17, 5, 6), (3, 4), (2, 3), (1, 2)),
    "whole plane": Case((2, 20, 5, 7), (5, 7), (5, 7)),
    "one pixel": Case((1, 1, 1, 1), (1, 1), (3, 3)),
}
ALL_CASES = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@pytest.fixture(scope="module", autouse=True)
def _loaded_kernels():
    load((avg_pool.avg_pool_forward, avg_pool.avg_pool_backward_input), "float32")
    load((loops_pooling.avg_pool_forward, loops_pooling.avg_pool_backward_input), "float64")


def drawn(case):
    rng = np.random.default_rng(0)
    return rng.standard_normal(case.shape), rng.standard_normal(case.output)


def by_loops(case, x, dy):
    y, dx = np.full(case.output, np.nan), np.full(case.shape, np.nan)
    loops_pooling.avg_pool_forward(x, *case[1:], y)
    loops_pooling.avg_pool_backward_input(dy, *case[1:], dx)
    return y, dx


@ALL_CASES
def test_loops_give_the_mean_of_each_window_and_its_slope(case):
    x, dy = drawn(case)
    y, dx = by_loops(case, x, dy)
    np.testing.assert_allclose(y, oracles.avg_pool_forward(x, *case[1:]), rtol=1e-13, atol=1e-14)
    oracles.check_gradient(lambda x: float((by_loops(case, x, dy)[0] * dy).sum()), x, dx)


@ALL_CASES
@pytest.mark.parametrize("flattened", [False, True], ids=["channels last", "flattened"])
def test_kernels_agree_with_the_loops(case, flattened):
    x, dy = (a.astype(np.float32) for a in drawn(case))
    exact_y, exact_dx = by_loops(case, x.astype(np.float64), dy.astype(np.float64))
    N, C, P, Q = case.output
    x_NHWC, y_NPQC = channels_last(x), spoilt((N, P, Q, C))
    avg_pool.avg_pool_forward(x_NHWC, *case[1:], y_NPQC)
    d_ND, steps = (dy, (1, P * Q)) if flattened else (channels_last(dy), (C, 1))
    dx_NHWC = spoilt(x_NHWC.shape)
    avg_pool.avg_pool_backward_input(np.ascontiguousarray(d_ND).reshape(N, -1), *steps, *case[1:], (P, Q), dx_NHWC)
    assert_nothing_was_written_around(x_NHWC, y_NPQC, dx_NHWC)
    np.testing.assert_allclose(channels_first(y_NPQC), exact_y, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(channels_first(dx_NHWC), exact_dx, rtol=1e-5, atol=1e-6)
