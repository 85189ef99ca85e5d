"""Adam: its coefficients in each step, and its moments.

The moments are kept for the whole run, and saved in every checkpoint.

Sources: Kingma, Ba, "Adam", arXiv 1412.6980; Loshchilov, Hutter, "Decoupled weight decay", arXiv 1711.05101.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.config.schema.optimizer import Optimizer, Schedule
from partrain.kernels import loops
from partrain.kernels.elementary import power
from partrain.network.learning_rate import learning_rate

Array = NDArray[Any]


class Adam:
    """Adam with bias correction and decoupled weight decay over one flat vector.

    Parameters
    ----------
    parameters : the vector; written in place by `update`.
    optimizer, schedule : their fields of the configuration.

    Attributes
    ----------
    first_moment, second_moment : vectors like `parameters`, initially zero; assign to their elements to restore a
        saved state.
    """

    KERNELS = (loops.adam_update,)

    def __init__(self, parameters: Array, optimizer: Optimizer, schedule: Schedule) -> None:
        self.parameters, self._optimizer, self._schedule = parameters, optimizer, schedule
        self.first_moment = np.zeros_like(parameters)
        self.second_moment = np.zeros_like(parameters)

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of `step`, counted from 1."""
        return learning_rate(step, self._optimizer, self._schedule)

    def coefficients(self, num_examples: int, step: int) -> tuple[float, ...]:
        """Return the coefficients of `loops.adam_update` in its order, for a gradient summed over `num_examples`."""
        o = self._optimizer
        lr = self.learning_rate(step)
        return (
            1 / num_examples,
            lr / (1 - power(o.beta1, step)),
            o.beta1,
            1 - o.beta1,
            o.beta2,
            1 - o.beta2,
            o.eps,
            1 - lr * o.weight_decay,
            1 / math.sqrt(1 - power(o.beta2, step)),
        )

    def update(self, gradient_sum: Array, num_examples: int, step: int) -> None:
        """Make step `step` (counted from 1) with the sum of the gradients of `num_examples`."""
        coefficients = self.coefficients(num_examples, step)
        loops.adam_update(gradient_sum, *coefficients, self.first_moment, self.second_moment, self.parameters)
