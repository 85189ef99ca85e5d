"""Evaluation of a split: workers classify every example once, in the same tiles as in training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.data.split_name import SplitName
from partrain.errors import FailedRun
from partrain.network.exact_mean import exact_mean
from partrain.parallel.workers.commands import Command, Operation
from partrain.parallel.workers.compute_group import ComputeGroup
from partrain.parallel.workers.tiles import Tiling

# Tiles per command: few enough that all workers finish at about the same time, and enough that the cost of commands is
# negligible.
TILES_PER_COMMAND = 64


# eq=False: comparing arrays gives arrays, so a generated == would only raise.
@dataclass(frozen=True, eq=False)
class Evaluation:
    """The results of N examples, in order; L layers with parameters.

    Attributes
    ----------
    labels_N : the true class; int64.
    predictions_N : the most probable class; int64.
    losses_N : cross-entropy, in nats; float64.
    confidences_N : the probability of the predicted class, 0 to 1; float64.
    squared_norms_NL : squared norm of each example's gradient, by layer; float64; None if not computed.
    """

    labels_N: NDArray[np.int64]
    predictions_N: NDArray[np.int64]
    losses_N: NDArray[np.float64]
    confidences_N: NDArray[np.float64]
    squared_norms_NL: NDArray[np.float64] | None = None

    @property
    def num_examples(self) -> int:
        """The number of examples."""
        return len(self.labels_N)

    @property
    def loss(self) -> float:
        """The mean loss."""
        return exact_mean(self.losses_N)

    @property
    def accuracy(self) -> float:
        """The fraction of examples that were classified correctly, 0 to 1."""
        return np.count_nonzero(self.predictions_N == self.labels_N) / self.num_examples

    def metrics(self) -> dict[str, float]:
        """Return loss and accuracy, by name."""
        return {"loss": self.loss, "accuracy": self.accuracy}


def evaluate_split(
    group: ComputeGroup,
    arrays: Mapping[str, NDArray[Any]],
    split: SplitName,
    tiling: Tiling,
    follow: Callable[[int], None] = lambda num_done: None,
    commands_per_round: int | None = None,
    with_norms: bool = False,
) -> Evaluation:
    """Evaluate the shared parameters on every example of a split, each once.

    Parameters
    ----------
    group : computes the examples.
    arrays : the shared arrays; `losses`, `predictions` and `confidences` are overwritten.
    split : the split; the shared arrays must contain at least one example of it.
    tiling : cuts the split into tiles.
    follow : called after each round with the number of examples done; may raise to stop the evaluation.
    commands_per_round : commands per round; workers wait for each other at the end of a round. None: one round.
    with_norms : whether to compute the norms of the examples' gradients, in the array `squared_norms`.

    Returns
    -------
    The evaluation; its arrays are copies.

    Raises
    ------
    FailedRun
        The workers failed, or did not evaluate all examples.
    """
    operation = Operation.EVALUATION_WITH_NORMS if with_norms else Operation.EVALUATION
    labels_N = arrays[f"{split}.labels"]
    N = len(labels_N)
    arrays["predictions"][:N] = -1
    rounds = [(0, N)]
    if commands_per_round is not None:
        rounds = tiling.chunks(0, N, commands_per_round * TILES_PER_COMMAND)
    for start, stop in rounds:
        chunks = tiling.chunks(start, stop, TILES_PER_COMMAND)
        group.run([Command(operation, split, first, last) for first, last in chunks])
        follow(stop)
    predictions_N = arrays["predictions"][:N]
    if predictions_N.min() < 0:
        raise FailedRun(f"{int((predictions_N < 0).sum())} {split} examples were not evaluated")
    return Evaluation(
        labels_N=labels_N.copy(),
        predictions_N=predictions_N.copy(),
        losses_N=arrays["losses"][:N].copy(),
        confidences_N=arrays["confidences"][:N].copy(),
        squared_norms_NL=arrays["squared_norms"][:N].copy() if with_norms else None,
    )
