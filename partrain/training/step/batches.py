"""Batch selection: the examples of each step."""

from __future__ import annotations

import functools
from typing import Any, Protocol

from numpy.typing import NDArray

from partrain.data.batches import epoch_order


class BatchSelection(Protocol):
    """Selects the examples of each step."""

    def select(self, step: int) -> NDArray[Any]:
        """Return the indices (N,) of the training examples in the batch of `step`, counted from 1."""


class ShuffledBatches:
    """Batches that pass over the shuffled training examples once per epoch; the last batch may be smaller.

    Parameters
    ----------
    num_train : the number of training examples.
    batch_size : examples per batch.
    steps_per_epoch : batches per epoch.
    seed : the seed of the shuffle.
    """

    def __init__(self, num_train: int, batch_size: int, steps_per_epoch: int, seed: int) -> None:
        self._batch_size, self._steps_per_epoch = batch_size, steps_per_epoch
        self._order = functools.lru_cache(maxsize=1)(functools.partial(epoch_order, num_train, seed=seed))

    def select(self, step: int) -> NDArray[Any]:
        """See `BatchSelection`."""
        epoch, place = divmod(step - 1, self._steps_per_epoch)
        first = place * self._batch_size
        return self._order(epoch=epoch)[first : first + self._batch_size]
