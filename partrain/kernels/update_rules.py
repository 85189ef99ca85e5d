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

# A moment or velocity that is nearer to 0 than this becomes 0. Without a gradient it would shrink by a factor in each
# step, below the smallest normal float32, 2^-126, and stay there: arithmetic with such a number takes Intel's
# processors more than a hundred cycles, and an update with an eighth of them takes five times as long. What is dropped
# changes no step: Adam divides by at least eps.
# Source: Intel 64 and IA-32 Architectures Optimization Reference Manual, on denormals and assists.
SMALLEST_MOMENT = 2.0**-120
