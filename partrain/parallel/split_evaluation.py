"""Every example of a split, classified once, by the same workers in the same tiles as in a training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.data.split_name import SplitName
from partrain.errors import FailedRun
from partrain.parallel.workers.commands import Command, Operation
from partrain.parallel.workers.compute_group import ComputeGroup
from partrain.parallel.workers.tiles import Tiling

# Tiles a command: few enough that workers end at about the same time, enough that commands cost nothing.
TILES_A_COMMAND = 64


# Without eq: comparing arrays gives arrays, so a generated == would only raise.
@dataclass(frozen=True, eq=False)
class Evaluation:
    """What came of each of N examples, in their order.

    Attributes
    ----------
    labels_N, predictions_N : the true class, and the most probable one; int64.
    losses_N : cross-entropy, in nats; float64.
    confidences_N : the probability of the predicted class, 0 to 1; float64.
    squared_norms_NL : of each example's gradient, by layer, where that was asked for; float64.
    """

    labels_N: NDArray[np.int64]
    predictions_N: NDArray[np.int64]
    losses_N: NDArray[np.float64]
    confidences_N: NDArray[np.float64]
    squared_norms_NL: NDArray[np.float64] | None = None

    @property
    def num_examples(self) -> int:
        """How many examples."""
        return len(self.labels_N)

    @property
    def loss(self) -> float:
        """The mean loss."""
        return float(self.losses_N.mean())

    @property
    def accuracy(self) -> float:
        """The share of examples that were classified rightly, 0 to 1."""
        return float((self.predictions_N == self.labels_N).mean())

    def metrics(self) -> dict[str, float]:
        """Return loss and accuracy by name."""
        return {"loss": self.loss, "accuracy": self.accuracy}


def evaluate_split(
    group: ComputeGroup,
    arrays: Mapping[str, NDArray[Any]],
    split: SplitName,
    tiling: Tiling,
    follow: Callable[[int], None] = lambda num_done: None,
    commands_a_round: int | None = None,
    with_norms: bool = False,
) -> Evaluation:
    """Evaluate the shared parameters on every example of a split, each once.

    Parameters
    ----------
    group : who computes.
    arrays : the shared arrays; `losses`, `predictions` and `confidences` are overwritten.
    split : its examples are in the shared arrays, at least one.
    tiling : cuts the split.
    follow : called after each round with how many examples are done; may raise, to stop.
    with_norms : also the norms of the examples' gradients, in the array `squared_norms`.
    commands_a_round : at the end of each round workers wait for each other; without it there is one round.

    Returns
    -------
    The evaluation; its arrays are copies.
    """
    operation = Operation.EVALUATION_WITH_NORMS if with_norms else Operation.EVALUATION
    labels_N = arrays[f"{split}.labels"]
    N = len(labels_N)
    arrays["predictions"][:N] = -1
    rounds = [(0, N)]
    if commands_a_round is not None:
        rounds = tiling.chunks(0, N, commands_a_round * TILES_A_COMMAND)
    for start, stop in rounds:
        chunks = tiling.chunks(start, stop, TILES_A_COMMAND)
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
