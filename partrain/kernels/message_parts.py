"""Copies and adds the parts of a message, all by one call: for 64 ranks, a call of NumPy for each part took longer."""

from __future__ import annotations

from partrain.kernels.compiler.flags import kernel
from partrain.kernels.ipc.atomics import int32_at


@kernel("void(int64[:,::1])")
def copy_parts(parts):
    """Copy memory.

    Parameters
    ----------
    parts : addresses of target and source, and the number of 32-bit words, one row per part; read.
    """
    for part in range(len(parts)):
        size = parts[part, 2]
        target, source = int32_at(parts[part, 0], size), int32_at(parts[part, 1], size)
        for k in range(size):
            target[k] = source[k]


@kernel("void({float}[::1], int64[:,::1], int64)")
def add_parts(numbers, pairs, size):
    """Add vectors within an array, in order.

    Parameters
    ----------
    numbers : read and written.
    pairs : where two vectors begin; the sum takes the place of the first one.
    size : the numbers of each vector.
    """
    for pair in range(len(pairs)):
        left, right = pairs[pair, 0], pairs[pair, 1]
        for k in range(size):
            numbers[left + k] += numbers[right + k]
