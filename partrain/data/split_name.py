"""The names of the splits of a data set; a module of its own, for the command line needs no NumPy to know them."""

from enum import StrEnum


class SplitName(StrEnum):
    """What the examples of a split are for: training, choosing between checkpoints, or the final test."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"
