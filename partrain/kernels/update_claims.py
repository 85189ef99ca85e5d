"""Distributes the pieces of an update: which thread computes a piece.

Threads claim pieces by counters that they increment atomically. Each thread has a counter of its own for its share of
the pieces, so that threads rarely change the same cache line.
"""

from __future__ import annotations

from partrain.kernels.compiler.flags import inlined
from partrain.kernels.ipc.atomics import atomic_load, compare_exchange, yield_processor
from partrain.kernels.ipc.signal_words import LINE

# Indices of `control`, which the threads share; each word is on a cache line of its own.
GENERATION, NUM_EXAMPLES, DONE, NOT_FINITE_SUMS, NOT_FINITE_PARAMETERS, CLAIMS = (LINE * k for k in range(6))
# They are followed by the claims of both rounds for each thread, and the largest input and delta of each dense layer.

# First column of a row of `checks` and `pieces`: the kind of piece. See parallel.update.parameter_update.
SLOTS, FACTORS, UNITS = 0, 1, 2
# The rule of a row of `pieces`, and the groups of its parameters: see parallel.update.piece_rows.
RULE, GROUP, BIAS_GROUP, NUM_COLUMNS = 9, 10, 11, 12

SPINS = 2000


def control_size(num_threads: int, num_layers: int) -> int:
    """Return the number of int64 in `control`."""
    return CLAIMS + LINE * (2 * num_threads + 2 * num_layers)


@inlined
def _claim(control, claims, generation, size):
    """Return a number below `size` that no other thread gets in this generation, or -1 if none remains."""
    while True:
        seen = atomic_load(control, claims)
        place = seen & 0xFFFFFFFF
        if seen >> 32 != generation or place >= size:
            return -1
        if compare_exchange(control, claims, seen, seen + 1):
            return place


@inlined
def claim_any(control, claims, generation, thread, num_threads, size):
    """Return a piece below `size` that no other thread gets, or -1 if none remains.

    A thread takes the pieces of its own share first, and then those of the other threads.
    """
    for turn in range(num_threads):
        share = (thread + turn) % num_threads
        begin, end = share * size // num_threads, (share + 1) * size // num_threads
        k = _claim(control, claims + 2 * LINE * share, generation, end - begin)
        if k >= 0:
            return begin + k
    return -1


@inlined
def wait_until_done(control, count):
    """Wait until the threads have finished `count` pieces, counted from the first update on."""
    spins = 0
    while atomic_load(control, DONE) < count:
        spins += 1
        if spins > SPINS:
            yield_processor()
