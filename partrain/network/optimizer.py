"""The optimizer: its coefficients in each step, and its moments.

The moments are kept for the whole run, and saved in every checkpoint.

Sources: Kingma, Ba, "Adam", arXiv 1412.6980; Loshchilov, Hutter, "Decoupled weight decay", arXiv 1711.05101.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from partrain.kernels import loops_update
from partrain.kernels.compiler.flags import Kernel
from partrain.kernels.elementary import power
from partrain.kernels.update_rules import NUM_COEFFICIENTS, NUM_OF_RULE, Rule
from partrain.network.learning_rate import learning_rate
from partrain.network.muon import Muon
from partrain.network.parameter_groups import ParameterGroup, ParameterGroups, Span

if TYPE_CHECKING:  # workers need no schema
    from partrain.config.schema.training import Training

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
    training : the section of the configuration; gives optimizer, schedule, tile, and kernels.

    Attributes
    ----------
    parameters, groups : the arguments.
    reduced_lr : the learning rate of the configuration, after the reductions of the schedule `plateau`.
    first_moment, second_moment : vectors like `parameters`, initially zero; assign to their elements to restore a
        saved state. SGD and Muon keep the momentum in `first_moment`. They are empty if no group has them.
    """

    def __init__(self, parameters: Array, groups: ParameterGroups, training: Training) -> None:
        self.parameters, self.groups = parameters, groups
        self._optimizer, self._schedule, self._tile = training.optimizer, training.schedule, training.tile
        self._muon = Muon(training.kernels)
        self.reduced_lr: float | None = None
        self.first_moment = np.zeros(parameters.size * groups.have_first_moments, parameters.dtype)
        self.second_moment = np.zeros(parameters.size * groups.have_second_moments, parameters.dtype)

    @staticmethod
    def kernels(rules: frozenset[Rule], kernels: str) -> tuple[Kernel, ...]:
        """Return the kernels that `update` calls for groups with these rules; `kernels` is "fast" or "loops"."""
        of_muon = Muon.kernels(kernels) if Rule.MUON in rules else ()
        return (*(_LOOPS[rule] for rule in sorted(rules - {Rule.MUON})), *of_muon)

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of `step`, counted from 1."""
        return learning_rate(step, self._optimizer, self._schedule, self.reduced_lr)

    def coefficients(self, num_examples: int, step: int) -> list[Coefficients]:
        """Return the row of coefficients of each group, for a gradient summed over `num_examples`.

        A row has the coefficients of the rule's loops, in their order, and then zeros.
        """
        lr = self.learning_rate(step)
        return [self._row(group, num_examples, step, lr * group.rate) for group in self.groups.groups]

    def update(self, gradient_sum: Array, num_examples: int, step: int, spans: Sequence[Span] | None = None) -> None:
        """Make step `step` (counted from 1) with the sum of the gradients of `num_examples`.

        Parameters
        ----------
        spans : the elements to update; None: all. With Muon, whole matrices.
        """
        rows = self.coefficients(num_examples, step)
        for span in self.groups.spans if spans is None else spans:
            self.update_span(span, gradient_sum, rows[span.group])

    def update_span(self, span: Span, gradient_sum: Array, row: Coefficients) -> None:
        """Update a span's elements of the vectors; different spans may be updated by different threads.

        Parameters
        ----------
        gradient_sum : of all parameters; read.
        row : the coefficients of the span's group in this step.
        """
        part = slice(span.first, span.last)
        vectors = self.first_moment[part], self.second_moment[part], self.parameters[part]
        self.change(span, gradient_sum[part], row, *vectors)

    def change(
        self,
        span: Span,
        gradient: Array,
        row: Coefficients,
        first_moment: Array,
        second_moment: Array,
        parameters: Array,
    ) -> None:
        """Change vectors of a span's elements by the rule of its group.

        Parameters
        ----------
        gradient : the sum of the gradients; read.
        row : the coefficients of the group in this step.
        first_moment, second_moment, parameters : read and written. Moments that no group has are empty.
        """
        rule = self.groups.groups[span.group].rule
        coefficients = row[: NUM_OF_RULE[rule]]
        if rule == Rule.MUON:
            shape = (self.groups.shape_at(span.first)[0], -1)
            scale, lr, momentum, decay, is_nesterov = coefficients
            matrices = first_moment.reshape(shape), parameters.reshape(shape)
            self._muon.update(gradient.reshape(shape), scale, lr, momentum, decay, bool(is_nesterov), *matrices)
        elif rule == Rule.ADAM:
            loops_update.adam_update(gradient, *coefficients, first_moment, second_moment, parameters)
        elif rule == Rule.SGD:
            loops_update.sgd_update(gradient, *coefficients, first_moment, parameters)
        else:
            loops_update.average_update(gradient, *coefficients, parameters)

    def _row(self, group: ParameterGroup, num_examples: int, step: int, lr: float) -> Coefficients:
        o = self._optimizer
        if group.rule == Rule.ADAM:
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
        if group.rule == Rule.SGD:
            shares = (1.0, group.momentum) if o.nesterov else (0.0, 1.0)
            return _padded(1 / num_examples, lr, group.momentum, group.weight_decay, *shares)
        if group.rule == Rule.MUON:
            return _padded(1 / num_examples, lr, group.momentum, 1 - lr * group.weight_decay, float(bool(o.nesterov)))
        return _padded(1 / -(-num_examples // self._tile), group.momentum)


def _padded(*coefficients: float) -> Coefficients:
    return (*coefficients, *[0.0] * (NUM_COEFFICIENTS - len(coefficients)))
