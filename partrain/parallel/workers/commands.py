"""The commands that a coordinator gives to its workers."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from partrain.data.split_name import SplitName


class Operation(IntEnum):
    """What a command computes. It travels through the mailbox as a number."""

    GRADIENTS = 0
    EVALUATION = 1
    GRADIENTS_WITH_NORMS = 2
    EVALUATION_WITH_NORMS = 3

    @property
    def is_step(self) -> bool:
        """Whether it computes the tiles of a training step."""
        return self in (Operation.GRADIENTS, Operation.GRADIENTS_WITH_NORMS)

    @property
    def has_norms(self) -> bool:
        """Whether it also writes the squared norms of each example's gradient, by layer."""
        return self in (Operation.GRADIENTS_WITH_NORMS, Operation.EVALUATION_WITH_NORMS)


# The number of a split in a mailbox is its place here.
_SPLITS = tuple(SplitName)


class Command(NamedTuple):
    """Compute the positions `first` to `last` - 1 of the current batch or evaluation.

    In a step, a position is a place in the batch: position p is the example `indices[p]` of the split, and `first` is
    the first position of a tile. With norms and `Computation.clip`, gradients are clipped per example.

    In an evaluation, position p is the example p of the split.
    """

    operation: Operation
    split: SplitName
    first: int
    last: int
    epoch: int = 0

    def encode(self) -> tuple[int, ...]:
        """Return the numbers that travel through the mailbox."""
        return int(self.operation), _SPLITS.index(self.split), self.first, self.last, self.epoch

    @classmethod
    def decode(cls, numbers: Sequence[int]) -> Command:
        """Return the command of these numbers, see `encode`."""
        operation, split, first, last, epoch = numbers
        return cls(Operation(operation), _SPLITS[split], first, last, epoch)
