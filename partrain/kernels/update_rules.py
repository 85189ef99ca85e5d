"""The rules by which an update changes parameters, and the numbers of their coefficients. Needs no Numba."""

from __future__ import annotations

from enum import IntEnum


class Rule(IntEnum):
    """How the parameters of a group change: see kernels.loops_update, and network.muon."""

    ADAM = 0
    SGD = 1
    AVERAGE = 2
    MUON = 3


# Coefficients of a group in a step, in the order in which the loops of its rule take them. Shorter rows are padded.
NUM_COEFFICIENTS = 9
NUM_OF_RULE = {Rule.ADAM: 9, Rule.SGD: 6, Rule.AVERAGE: 2, Rule.MUON: 5}
