"""The vectors that training changes: parameters and the optimizer's moments."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from numpy.typing import NDArray

from partrain.kernels.update_rules import Rule
from partrain.network.network import Network
from partrain.network.optimizer import ParameterOptimizer
from partrain.network.parameter_groups import ParameterGroup
from partrain.network.parameters import digest
from partrain.network.weight_average import WeightAverage
from partrain.parallel.update.parameter_update import ParameterUpdate
from partrain.store.checkpoint import AVERAGE_PREFIX, FIRST_MOMENT_PREFIX, MOMENTUM_PREFIX, SECOND_MOMENT_PREFIX

Array = NDArray[Any]


class ModelState:
    """Parameters and moments, and the number of the step after which they are the state.

    Parameters
    ----------
    network : gives the shapes of the parameters.
    optimizer : the optimizer of the shared parameters.
    update : updates parameters and moments.
    average : the average of the parameters; None: there is none.

    Attributes
    ----------
    optimizer, update, average : the arguments.
    step : the number of the last step that changed the vectors; None if an update failed midway and left them
        inconsistent. A state is saved only if this equals the last committed step.
    """

    def __init__(
        self,
        network: Network,
        optimizer: ParameterOptimizer,
        update: ParameterUpdate,
        average: WeightAverage | None = None,
    ) -> None:
        self._network, self.optimizer, self.update, self.average = network, optimizer, update, average
        self.step: int | None = 0

    def tensors(self) -> dict[str, Array]:
        """Return views of the tensors of a checkpoint, by name; valid until the next update.

        Raises
        ------
        MomentsLost
            With MPI: another rank has moments, and does not answer.
        """
        return self._tensors(*self.update.moments.newest())

    def _tensors(self, first_moments: Array, second_moments: Array) -> dict[str, Array]:
        views, groups = self._network.parameters.views, self.optimizer.groups
        first_moment, second_moment = (views(v) if v.size else {} for v in (first_moments, second_moments))
        tensors = views(self.optimizer.parameters)
        for name, view in first_moment.items():
            if (group := groups.group_of(name)) is not None and group.has_first_moment:
                tensors[_first_prefix(group) + name] = view
        for name, view in second_moment.items():
            if (group := groups.group_of(name)) is not None and group.has_second_moment:
                tensors[SECOND_MOMENT_PREFIX + name] = view
        if self.average is not None:
            tensors |= {AVERAGE_PREFIX + name: view for name, view in views(self.average.vector).items()}
        return tensors

    def restore(self, tensors: Mapping[str, Array], step: int) -> None:
        """Copy the tensors of a checkpoint that was saved after `step`."""
        self.update.moments.collect()
        for name, view in self._tensors(self.optimizer.first_moment, self.optimizer.second_moment).items():
            view[:] = tensors[name]
        self.step = step

    def set_parameters(self, vector: Array) -> None:
        """Set the parameters to `vector` (K,)."""
        self.optimizer.parameters[:] = vector
        if self.average is not None:
            self.average.copy()

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the averaged weights in the place of the parameters within the block."""
        assert self.average is not None
        parameters = self.optimizer.parameters
        own = parameters.copy()
        parameters[:] = self.average.vector
        try:
            yield
        finally:
            parameters[:] = own

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of `step`, counted from 1."""
        return self.optimizer.learning_rate(step)

    def parameters_sha256(self) -> str:
        """Return the digest of the parameters."""
        return digest(self.optimizer.parameters)

    def first_not_finite(self, vector: Array) -> str | None:
        """Return the name of the first parameter with a value in `vector` (K,) that is not finite, or None."""
        return self.update.first_not_finite(vector)

    def close(self) -> None:
        """End the threads of the update."""
        self.update.close()


def _first_prefix(group: ParameterGroup) -> str:
    return FIRST_MOMENT_PREFIX if group.rule == Rule.ADAM else MOMENTUM_PREFIX
