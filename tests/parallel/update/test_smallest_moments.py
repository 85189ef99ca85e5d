"""Moments without a gradient shrink, and become 0 before they are denormal numbers, which are slow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from partrain.config.schema.optimizer import Optimizer
from partrain.kernels.update_rules import SMALLEST_MOMENT
from partrain.network.muon import Muon
from partrain.parallel.update.parameter_update import ParameterUpdate
from partrain.parallel.workers.tile_computer import Computation
from tests.optimizers import optimizer_of

# Multiples of the smallest moment, before an update that multiplies them by 0.9 (or 0.999).
MULTIPLES = (8.0, 1.2, 1.05, 1.0, 0.5, 2.0**-20, 0.0)


@pytest.mark.parametrize(("kernels", "dtype"), [("fast", "float32"), ("loops", "float32"), ("loops", "float64")])
@pytest.mark.parametrize(
    "settings",
    [{"name": "adam"}, {"name": "sgd", "momentum": 0.9}],
    ids=lambda settings: settings["name"],
)
def test_a_moment_without_a_gradient_becomes_zero_below_the_smallest(
    make_computation: Callable[..., Computation], settings: dict[str, Any], kernels: str, dtype: str
) -> None:
    computation = make_computation(kernels=kernels, dtype=dtype)
    arrays = computation.arrays
    for name, array in arrays.items():
        if name == "tile_sums" or name.startswith("dense"):
            array[...] = 0
    chosen = Optimizer(lr=0.01, **settings)
    optimizer = optimizer_of(arrays["parameters"], chosen, parameters=computation.network.parameters)
    moments = [optimizer.first_moment, optimizer.second_moment]
    number, before = np.dtype(dtype).type, []
    for moment in moments:
        moment[:] = np.resize(SMALLEST_MOMENT * np.array(MULTIPLES), len(moment))
        before.append(moment.copy())
    before[0][::2] *= -1
    moments[0][:] = before[0]
    update = ParameterUpdate(computation.network, kernels, arrays, computation.tiling, dtype, optimizer)
    try:
        assert update.apply(20, 1) is None
    finally:
        update.close()
    for moment, old, factor in zip(moments, before, (0.9, 0.999), strict=True):
        expected = number(factor) * old
        assert np.array_equal(moment, np.where(np.abs(expected) < SMALLEST_MOMENT, 0, expected))
        assert not len(moment) or (np.count_nonzero(moment) and (moment[np.abs(old) > 0] == 0).any())


@pytest.mark.parametrize(("kernels", "dtype"), [("fast", np.float32), ("loops", np.float64)])
def test_a_momentum_of_muon_becomes_zero_below_the_smallest(kernels: str, dtype: type[np.floating[Any]]) -> None:
    momentum = np.resize(SMALLEST_MOMENT * np.array(MULTIPLES), (4, 9)).astype(dtype)
    momentum[0, :3] = 1, -1e-20, np.nan
    expected = dtype(0.9) * momentum
    expected[np.abs(expected) < SMALLEST_MOMENT] = 0
    Muon(kernels).update(np.zeros((4, 9), dtype), 1.0, 0.1, 0.9, 1.0, True, momentum, np.ones((4, 9), dtype))
    assert np.array_equal(momentum, expected, equal_nan=True)
    assert np.count_nonzero(momentum) < np.count_nonzero(MULTIPLES * 5)
