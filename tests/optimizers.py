"""Makes the optimizers of tests."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from partrain.config.schema.optimizer import Optimizer, Schedule
from partrain.network.optimizer import ParameterOptimizer
from partrain.network.parameter_groups import ParameterGroups
from partrain.network.parameters import Parameter, ParameterLayout


def optimizer_of(
    vector: NDArray[Any],
    optimizer: Optimizer,
    schedule: Schedule | None = None,
    *,
    parameters: ParameterLayout | None = None,
    tile: int = 4,
) -> ParameterOptimizer:
    """Return the optimizer of a vector; without `parameters`, it holds a single weight."""
    if parameters is None:
        parameters = ParameterLayout([Parameter("dense1.weight", vector.shape, 0.0)])
    return ParameterOptimizer(vector, ParameterGroups(parameters, optimizer), optimizer, schedule or Schedule(), tile)
