"""Copies between the arrays of a rank and its messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.kernels.message_parts import copy_parts

Array = NDArray[Any]
Pairs = Sequence[tuple[Array, Array]]

WORD_BYTES = 4


class Copies:
    """Copies that are made together, as often as they are needed.

    Parameters
    ----------
    pairs : targets, and sources of the same size; both C-contiguous, of whole 32-bit words.
    """

    KERNELS = (copy_parts,)

    def __init__(self, pairs: Pairs) -> None:
        self._pairs = pairs  # keeps them alive: the kernel has only their addresses
        for target, source in pairs:
            assert target.nbytes == source.nbytes
            assert target.nbytes % WORD_BYTES == 0
            assert target.flags.c_contiguous
            assert source.flags.c_contiguous
        rows = [(target.ctypes.data, source.ctypes.data, target.nbytes // WORD_BYTES) for target, source in pairs]
        self._parts = np.array(rows, np.int64).reshape(-1, 3)

    def make(self) -> None:
        """Copy all sources to their targets, in order."""
        copy_parts(self._parts)
