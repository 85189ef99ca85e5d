from __future__ import annotations

import numpy as np
import pytest

from partrain.config.schema.optimizer import Optimizer
from partrain.config.schema.training import Ema
from partrain.kernels.compiler.loading import load
from partrain.network.parameter_groups import ParameterGroups
from partrain.network.parameters import Parameter, ParameterLayout
from partrain.network.weight_average import WeightAverage

PARAMETERS = ParameterLayout(
    (
        Parameter("conv1.weight", (5,), 0.0),
        Parameter("batch_norm1.running_mean", (3,), 0.0, role="average", momentum=0.1),
        Parameter("dense1.weight", (4,), 0.0),
    )
)
GROUPS = ParameterGroups(PARAMETERS, Optimizer())


@pytest.fixture(scope="module", autouse=True)
def _loaded_kernels() -> None:
    load(WeightAverage.KERNELS, "float64")


@pytest.mark.parametrize("warmup", [False, True])
def test_average_is_that_of_the_formula_and_running_averages_are_copied(warmup: bool) -> None:
    vectors = np.random.default_rng(0).standard_normal((30, PARAMETERS.size))
    parameters = np.zeros(PARAMETERS.size)
    average = WeightAverage(Ema(decay=0.7, warmup=warmup), GROUPS, parameters)
    expected = np.zeros(PARAMETERS.size)
    for t, vector in enumerate(vectors):
        parameters[:] = vector
        average.update(t + 1)
        decay = min(0.7, (1 + t) / (10 + t)) if warmup else 0.7
        expected = vector if t == 0 else decay * expected + (1 - decay) * vector
        expected[5:8] = vector[5:8]
        np.testing.assert_allclose(average.vector, expected, rtol=1e-12, atol=1e-14)


def test_average_of_decay_0_is_the_parameters() -> None:
    parameters = np.arange(12.0)
    average = WeightAverage(Ema(decay=0), GROUPS, parameters)
    parameters *= 3
    average.update(5)
    assert np.array_equal(average.vector, parameters)
