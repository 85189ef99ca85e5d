"""The names of the splits of a data set, in a module without NumPy, so that the command line starts fast."""

from enum import StrEnum


class SplitName(StrEnum):
    """The purpose of a split: training, selection of checkpoints, or the final test."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"
