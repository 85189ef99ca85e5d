"""Batch gradient: workers compute the tiles of a batch, in one round or in several.

Shapes: N examples of a batch; L layers with parameters; K parameters.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from partrain.data.split_name import SplitName
from partrain.network.exact_mean import exact_mean
from partrain.parallel.update.parameter_update import ParameterUpdate
from partrain.parallel.workers.commands import Command, Operation
from partrain.parallel.workers.compute_group import ComputeGroup
from partrain.parallel.workers.tiles import Tiling
from partrain.training.step.phase_timer import COMPUTE, PREPARE, UPDATE, PhaseTimer

Array = NDArray[Any]


# eq=False: comparing arrays gives arrays, so a generated == would only raise. Not frozen: a frozen instance, one per
# step, takes twice as long to create.
@dataclass(eq=False, slots=True)
class BatchGradient:
    """The gradient of a batch, and the result of each of its examples; valid until the next step.

    Attributes
    ----------
    indices_N : the examples.
    loss : their mean loss; NaN for an empty batch.
    has_norms : whether the norms of the examples' gradients were computed.
    """

    indices_N: Array
    loss: float
    has_norms: bool
    _results: Mapping[str, Array]
    _labels_M: Array
    _update: ParameterUpdate
    _sum: Array | None = None

    @property
    def num_examples(self) -> int:
        """The number of examples."""
        return len(self.indices_N)

    def agrees_with(self, labelled_N: Array) -> Array:
        """Return whether the class that was predicted for each example is the label of another one (N,), bool.

        Parameters
        ----------
        labelled_N : the examples with these labels, one for each of the batch.
        """
        agrees_N: Array = self.result("predictions") == self._labels_M[labelled_N]
        return agrees_N

    @property
    def losses_N(self) -> Array:
        """The loss of each example (N,), float64."""
        return self.result("losses")

    @property
    def squared_norms_NL(self) -> Array:
        """The squared norm of each example's gradient before clipping, by layer (N,L), float64; needs `has_norms`."""
        assert self.has_norms
        return self.result("squared_norms")

    @property
    def squared_norm_of_sum(self) -> float:
        """The squared norm of `sum()`, in float64."""
        return self._update.squared_norm_of(self.sum())

    def result(self, name: str) -> Array:
        """Return the rows of the batch in the array `name` of results."""
        return self._results[name][: len(self.indices_N)]

    def sum(self) -> Array:
        """Return the sum of the examples' gradients, after clipping (K,)."""
        return self._update.gradient_sum(len(self.indices_N)) if self._sum is None else self._sum


class GradientComputation(Protocol):
    """Computes the gradient of a batch."""

    def compute(
        self, indices_N: Array, epoch: int, *, with_norms: bool, timer: PhaseTimer | None = None
    ) -> BatchGradient:
        """Compute the gradient of a batch.

        Parameters
        ----------
        indices_N : the examples.
        epoch : counted from 0; augmentation and dropout depend on it.
        with_norms : whether to compute the norms of the examples' gradients; with clipping, they are always computed.
        timer : measures the phases; None: nothing is timed.
        """


class TiledGradient:
    """Computes a batch in one round, and leaves its gradient in the shared arrays as tile sums and factors.

    Parameters
    ----------
    group : computes tiles.
    arrays : the shared arrays.
    tiling : cuts the batch.
    update : reduces the tile sums and factors to one sum, on request.
    clips : whether gradients are clipped per example.
    """

    def __init__(
        self,
        group: ComputeGroup,
        arrays: Mapping[str, Array],
        tiling: Tiling,
        update: ParameterUpdate,
        *,
        clips: bool,
    ) -> None:
        self._group, self._arrays, self._clips = group, arrays, clips
        self.update = update
        self._indices, self._losses, self._labels_M = (
            arrays["indices"],
            arrays["losses"],
            arrays[f"{SplitName.TRAIN}.labels"],
        )
        # Not a method: an object whose cache refers to it would keep the shared arrays in memory.
        cut = functools.partial(_cut_into_shards, tiling, group.num_at_once)
        self._commands = functools.lru_cache(maxsize=4)(cut)

    @property
    def capacity(self) -> int:
        """The largest number of examples in a round."""
        return len(self._indices)

    def compute(
        self, indices_N: Array, epoch: int, *, with_norms: bool, timer: PhaseTimer | None = None
    ) -> BatchGradient:
        """See `GradientComputation`."""
        num_examples, has_norms = len(indices_N), with_norms or self._clips
        self._indices[:num_examples] = indices_N
        commands = self._commands(num_examples, has_norms, epoch)
        if timer is not None:
            timer.end(PREPARE)
        self._group.run(commands)
        if timer is not None:
            timer.end(COMPUTE)
        loss = exact_mean(self._losses[:num_examples])
        if timer is not None:
            timer.end(PREPARE)
        return BatchGradient(indices_N, loss, has_norms, self._arrays, self._labels_M, self.update)


def _cut_into_shards(tiling: Tiling, num_shards: int, num_examples: int, has_norms: bool, epoch: int) -> list[Command]:
    operation = Operation.GRADIENTS_WITH_NORMS if has_norms else Operation.GRADIENTS
    shards = tiling.shards(0, num_examples, num_shards)
    return [Command(operation, SplitName.TRAIN, first, last, epoch) for first, last in shards]


class GradientInRounds:
    """Computes a batch of any size in rounds, and adds the sums of the rounds in order. The batch may be empty.

    Parameters
    ----------
    one_round : computes each round.
    arrays : the shared arrays.
    """

    def __init__(self, one_round: TiledGradient, arrays: Mapping[str, Array]) -> None:
        self._round, self._labels_M = one_round, arrays[f"{SplitName.TRAIN}.labels"]
        self._sum = np.zeros_like(arrays["parameters"])
        names = ("losses", "predictions", "squared_norms")
        self._nothing = {name: arrays[name][:0] for name in names}

    def compute(
        self, indices_N: Array, epoch: int, *, with_norms: bool, timer: PhaseTimer | None = None
    ) -> BatchGradient:
        """See `GradientComputation`."""
        self._sum[:] = 0
        results = {name: [nothing] for name, nothing in self._nothing.items()}
        for first in range(0, len(indices_N), self._round.capacity):
            part_N = indices_N[first : first + self._round.capacity]
            part = self._round.compute(part_N, epoch, with_norms=True, timer=timer)
            self._sum += part.sum()
            for name, arrays in results.items():
                arrays.append(part.result(name).copy())
            if timer is not None:
                timer.end(UPDATE)
        joined = {name: np.concatenate(arrays) for name, arrays in results.items()}
        loss = exact_mean(joined["losses"])
        return BatchGradient(indices_N, loss, True, joined, self._labels_M, self._round.update, self._sum)
