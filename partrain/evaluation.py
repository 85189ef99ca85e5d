"""Loss and accuracy over a whole split, computed by the same workers in the same tiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from partrain.data.batches import SplitRange
from partrain.errors import FailedRun
from partrain.parallel.worker import EVALUATE, FILES, Command
from partrain.parallel.worker_pool import ComputeGroup

# Tiles a command: few enough that workers end at about the same time, enough that commands cost nothing.
TILES_A_COMMAND = 64


@dataclass(frozen=True)
class Evaluation:
    """Mean loss (cross-entropy, in nats) and accuracy (0 to 1) over `num_examples` examples."""

    loss: float
    accuracy: float
    num_examples: int

    def metrics(self) -> dict[str, float]:
        """Return loss and accuracy by name."""
        return {"loss": self.loss, "accuracy": self.accuracy}


def evaluate_split(group: ComputeGroup, arrays: Mapping[str, NDArray[Any]], split: SplitRange, tile: int) -> Evaluation:
    """Evaluate the shared parameters on every example of a split, each once.

    Parameters
    ----------
    group : who computes.
    arrays : the shared arrays; `losses` and `predictions` are overwritten.
    split : not empty.
    tile : examples a tile.
    """
    piece = TILES_A_COMMAND * tile
    file = FILES.index(split.file)
    arrays["predictions"][: split.size] = -1
    group.run(
        [
            Command(EVALUATE, file, split.first, first, min(first + piece, split.size))
            for first in range(0, split.size, piece)
        ]
    )
    predictions_N = arrays["predictions"][: split.size]
    labels_N = arrays[f"{split.file}.labels"][split.first : split.last]
    if predictions_N.min() < 0:
        raise FailedRun(f"{int((predictions_N < 0).sum())} examples of the {split.file} file were not evaluated")
    return Evaluation(
        loss=float(arrays["losses"][: split.size].mean()),
        accuracy=float((predictions_N == labels_N).mean()),
        num_examples=split.size,
    )
