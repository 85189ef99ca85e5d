"""Sums over the blocks of a batch, in a binary tree that depends on the number of blocks alone.

Of n blocks, the largest power of two below n is the left branch, the rest the right one, and so on:

    3 blocks   (0 + 1) + 2              6 blocks   ((0 + 1) + (2 + 3)) + (4 + 5)

Blocks are summed one after the other. Those that wait for their right branch are in a stack: level l holds the sum of
2**l blocks, and is taken if bit l of the number of blocks before this one is 1. So the stack stays in the cache.
"""

from __future__ import annotations

import numpy as np

from partrain.kernels.compiler.flags import inlined
from partrain.kernels.compiler.target import num_vector_registers

from .simd.blocks import add_scaled, points_in_steps, store_block
from .simd.vectors import LANES, broadcast, element, store_number

# Vectors whose sums stay in registers: a narrow and a wide span, and one for rows that are a multiple of it.
SPAN = 10
WIDE_SPAN = 20 if num_vector_registers() == 32 else SPAN
EVEN_SPAN = 16 if num_vector_registers() == 32 else 8


@inlined
def stack_for(num_blocks):
    """Return the stack for sums of up to WIDE_SPAN·LANES numbers."""
    levels = 1
    while num_blocks >> levels:
        levels += 1
    return np.empty(levels * WIDE_SPAN * LANES, np.float32)


@inlined
def is_joined(waiting, is_last):
    """Return whether the tree joins a sum with one that waits; the last block is joined with all of them."""
    return waiting & 1 or (is_last and waiting > 0)


def join_vectors_of(span):
    """Return the function that adds the sums of a block, `span` vectors, to the tree.

    Those of the last block are the result, at target[start:].
    """

    @inlined
    def join_vectors(sums, number, is_last, stack, target, start):
        level, waiting = 0, number
        while is_joined(waiting, is_last):
            if waiting & 1:
                points = points_in_steps(stack, level * span * LANES, LANES, span)
                sums = add_scaled(sums, broadcast(np.float32(1)), points, 0)  # the product with 1 is exact
            waiting >>= 1
            level += 1
        if is_last:
            store_block(sums, points_in_steps(target, start, LANES, span), 0)
        else:
            store_block(sums, points_in_steps(stack, level * span * LANES, LANES, span), 0)

    return join_vectors


join_vectors = join_vectors_of(SPAN)


@inlined
def join_numbers(size, number, is_last, stack, target, start):
    """Add the sums of a block at target[start:][:size] to the tree; those of the last one become the result there."""
    level, waiting = 0, number
    while is_joined(waiting, is_last):
        if waiting & 1:
            for i in range(size):
                left = element(stack, level * SPAN * LANES + i)
                store_number(target, start + i, left + element(target, start + i))
        waiting >>= 1
        level += 1
    if not is_last:
        for i in range(size):
            store_number(stack, level * SPAN * LANES + i, element(target, start + i))
