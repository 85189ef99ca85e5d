"""The optimizer: its coefficients in each step, and its moments.

The moments are kept for the whole run, and saved in every checkpoint.

Sources: Kingma, Ba, "Adam", arXiv 1412.6980; Loshchilov, Hutter, "Decoupled weight decay", arXiv 1711.05101.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.config.schema.optimizer import Optimizer, Schedule
from partrain.kernels import loops_update
from partrain.kernels.compiler.flags import Kernel
from partrain.kernels.elementary import power
from partrain.kernels.update_rules import NUM_COEFFICIENTS, NUM_OF_RULE, Rule
from partrain.network.learning_rate import learning_rate
from partrain.network.parameter_groups import ParameterGroup, ParameterGroups

Array = NDArray[Any]
Coefficients = tuple[float, ...]

_LOOPS = {
    Rule.ADAM: loops_update.adam_update,
    Rule.SGD: loops_update.sgd_update,
    Rule.AVERAGE: loops_update.average_update,
}


class ParameterOptimizer:
    """Changes the parameters, group by group, over one flat vector.

    Parameters
    ----------
    parameters : the vector; written in place by `update`.
    groups : the groups of the parameters.
    optimizer, schedule : their fields of the configuration.
    tile : the number of examples per tile.

    Attributes
    ----------
    parameters, groups : the arguments.
    first_moment, second_moment : vectors like `parameters`, initially zero; assign to their elements to restore a
        saved state.
    """

    def __init__(
        self, parameters: Array, groups: ParameterGroups, optimizer: Optimizer, schedule: Schedule, tile: int
    ) -> None:
        self.parameters, self.groups = parameters, groups
        self._optimizer, self._schedule, self._tile = optimizer, schedule, tile
        self.first_moment = np.zeros_like(parameters)
        self.second_moment = np.zeros_like(parameters)

    @staticmethod
    def kernels(rules: frozenset[Rule]) -> tuple[Kernel, ...]:
        """Return the kernels that `update` calls for groups with these rules."""
        return tuple(_LOOPS[rule] for rule in sorted(rules))

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of `step`, counted from 1."""
        return learning_rate(step, self._optimizer, self._schedule)

    def coefficients(self, num_examples: int, step: int) -> list[Coefficients]:
        """Return the row of coefficients of each group, for a gradient summed over `num_examples`.

        A row has the coefficients of the rule's loops, in their order, and then zeros.
        """
        lr = self.learning_rate(step)
        return [self._row(group, num_examples, step, lr) for group in self.groups.groups]

    def update(self, gradient_sum: Array, num_examples: int, step: int) -> None:
        """Make step `step` (counted from 1) with the sum of the gradients of `num_examples`."""
        rows = self.coefficients(num_examples, step)
        for first, last, group in self.groups.spans:
            part, rule = slice(first, last), self.groups.groups[group].rule
            coefficients = rows[group][: NUM_OF_RULE[rule]]
            gradient, parameters = gradient_sum[part], self.parameters[part]
            if rule == Rule.AVERAGE:
                loops_update.average_update(gradient, *coefficients, parameters)
            else:
                loops_update.adam_update(
                    gradient, *coefficients, self.first_moment[part], self.second_moment[part], parameters
                )

    def _row(self, group: ParameterGroup, num_examples: int, step: int, lr: float) -> Coefficients:
        if group.rule == Rule.AVERAGE:
            return _padded(1 / -(-num_examples // self._tile), group.momentum)
        o = self._optimizer
        return (
            1 / num_examples,
            lr / (1 - power(o.beta1, step)),
            o.beta1,
            1 - o.beta1,
            o.beta2,
            1 - o.beta2,
            o.eps,
            1 - lr * group.weight_decay,
            1 / math.sqrt(1 - power(o.beta2, step)),
        )


def _padded(*coefficients: float) -> Coefficients:
    return (*coefficients, *[0.0] * (NUM_COEFFICIENTS - len(coefficients)))
