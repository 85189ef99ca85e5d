"""The commands that a coordinator gives to its workers."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


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


class Command(NamedTuple):
    """Compute the positions `first` to `last` - 1 of the current batch or evaluation.

    In a step, a position is a place in the batch: position p is the example `indices[p]` of the file "train", and
    `first` is the first position of a tile. With norms and `Computation.clip`, gradients are clipped per example.

    In an evaluation, position p is the example `offset` + p of `file`.
    """

    operation: Operation
    file: int  # index into FILES
    offset: int
    first: int
    last: int
    epoch: int = 0


FILES = ("train", "test")
