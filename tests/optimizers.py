"""Makes the optimizers of tests."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.config.schema.optimizer import Optimizer
from partrain.config.schema.schedule import Schedule
from partrain.config.schema.training import Training
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
    last_layer: str = "",
) -> ParameterOptimizer:
    """Return the optimizer of a vector; without `parameters`, it holds a single weight."""
    if parameters is None:
        parameters = ParameterLayout([Parameter("dense1.weight", vector.shape, 0.0)])
    kernels: Any = "fast" if vector.dtype == np.float32 else "loops"
    training = Training(optimizer=optimizer, schedule=schedule or Schedule(), tile=tile, kernels=kernels)
    return ParameterOptimizer(vector, ParameterGroups(parameters, optimizer, last_layer), training)
