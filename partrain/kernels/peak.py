"""Multiply-adds in registers only: the processor's peak, to compare other kernels with."""

from __future__ import annotations

from partrain.kernels.compiler.flags import kernel

from .simd.vectors import LANES, broadcast, multiply_add, store

# Independent sums: more than two multiply-adds a cycle, with a latency of four or five cycles, need. Together with the
# two factors they fit 16 registers.
SUMS = 12
# Floating-point operations in a round.
OPERATIONS_PER_ROUND = 2 * SUMS * LANES


@kernel("void(int64, float32[::1])")
def multiply_adds(num_rounds, sums):
    """s = s/2 + 1, `num_rounds` times, in SUMS vectors; overwrites `sums` (SUMS · LANES,) with them.

    The loop loads nothing, and no sum waits for another. The values stay near 2, far from the subnormal numbers that
    are slow on some processors.
    """
    half, one = broadcast(0.5), broadcast(1.0)
    a = b = c = d = e = f = g = h = i = j = k = m = broadcast(0.0)
    for _ in range(num_rounds):
        a = multiply_add(a, half, one)
        b = multiply_add(b, half, one)
        c = multiply_add(c, half, one)
        d = multiply_add(d, half, one)
        e = multiply_add(e, half, one)
        f = multiply_add(f, half, one)
        g = multiply_add(g, half, one)
        h = multiply_add(h, half, one)
        i = multiply_add(i, half, one)
        j = multiply_add(j, half, one)
        k = multiply_add(k, half, one)
        m = multiply_add(m, half, one)
    place = 0
    for vector in (a, b, c, d, e, f, g, h, i, j, k, m):
        store(sums, place, vector)
        place += LANES
