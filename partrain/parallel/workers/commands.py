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
    STEPS = 4

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

    @property
    def num_examples(self) -> int:
        """The number of positions."""
        return self.last - self.first

    def encode(self) -> tuple[int, ...]:
        """Return the numbers that travel through the mailbox."""
        return int(self.operation), _SPLITS.index(self.split), self.first, self.last, self.epoch

    @classmethod
    def of_step(cls, operation: int, first: int, last: int, epoch: int = 0) -> Command:
        """Return the command that computes the positions `first` to `last` - 1 of a training batch."""
        return cls(Operation(operation), SplitName.TRAIN, first, last, epoch)


class StepsCommand(NamedTuple):
    """Make a series of planned steps together with other workers; see `parallel.workers.planned_steps`.

    Attributes
    ----------
    first_step : the first step of the series.
    num_examples : the examples of a whole batch.
    member, num_members : the number of this worker among those of the series, counted from 0, and their number.
    """

    first_step: int
    num_examples: int
    member: int
    num_members: int

    @property
    def operation(self) -> Operation:
        """The operation."""
        return Operation.STEPS

    def encode(self) -> tuple[int, ...]:
        """Return the numbers that travel through the mailbox."""
        return int(Operation.STEPS), *self


def decode(numbers: Sequence[int]) -> Command | StepsCommand:
    """Return the command of these numbers, see `encode`."""
    operation, *fields = numbers
    if operation == Operation.STEPS:
        return StepsCommand(*fields)
    split, first, last, epoch = fields
    return Command(Operation(operation), _SPLITS[split], first, last, epoch)
