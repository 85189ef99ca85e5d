from __future__ import annotations

import numba
import numpy as np
import pytest

from partrain.kernels.block_tree import SPAN, stack_for
from partrain.kernels.simd.vectors import LANES
from partrain.kernels.update_pieces import magnitude, sum_slots


@numba.njit
def largest_magnitude(address, first, last):
    return magnitude(address, first, last)


@pytest.mark.parametrize("largest", [-7.5, 7.5, np.inf, -np.inf, np.nan, -1e-45])
@pytest.mark.parametrize("size", [1, LANES - 1, LANES, 3 * LANES + 1])
def test_largest_magnitude_is_found_wherever_it_is(size, largest):
    first, scale = 3, 1e-45 if abs(largest) < 1 else 1.0
    for place in range(size):
        numbers = np.full(first + size + 5, -9 * scale, np.float32)  # what is around them does not count
        numbers[first : first + size] = np.float32(-scale) * (np.arange(size) % 2)
        numbers[first + place] = largest
        bits = np.array(largest_magnitude(numbers.ctypes.data, first, first + size), np.int32)
        assert np.array_equal(bits.view(np.float32), np.abs(np.float32(largest)), equal_nan=True)


@numba.njit
def slots_are_summed(slots_TK, num_tiles, tiles_per_block, first, last, gradient):
    stack = stack_for((num_tiles + tiles_per_block - 1) // tiles_per_block)
    return sum_slots(slots_TK, num_tiles, tiles_per_block, stack, first, last, gradient)


def tree_sum(parts):
    """The largest power of two below the number of parts goes left, the rest right."""
    if len(parts) == 1:
        return parts[0]
    left = 1
    while 2 * left < len(parts):
        left *= 2
    return tree_sum(parts[:left]) + tree_sum(parts[left:])


@pytest.mark.parametrize("tiles_per_block", [1, 2, 9, 50])
@pytest.mark.parametrize("num_tiles", [1, 2, 9, 26])
@pytest.mark.parametrize("size", [1, SPAN * LANES - 1, SPAN * LANES, 3 * SPAN * LANES + 5])
def test_slots_are_summed_in_the_order_of_a_blocks_tiles_and_blocks_in_a_tree(size, num_tiles, tiles_per_block):
    first, last = 3, 3 + size
    slots = np.random.default_rng(size).standard_normal((num_tiles + 1, size + 7)).astype(np.float32)
    blocks = []
    for start in range(0, num_tiles, tiles_per_block):
        blocks.append(np.zeros(size, np.float32))
        for t in range(start, min(num_tiles, start + tiles_per_block)):
            blocks[-1] += slots[t, first:last]
    gradient = np.full(size + 7, 77, np.float32)
    assert slots_are_summed(slots, num_tiles, tiles_per_block, first, last, gradient)
    assert np.array_equal(gradient[first:last], tree_sum(blocks))
    assert (gradient[:first] == 77).all()
    assert (gradient[last:] == 77).all()
    for place in (first, last - 1):
        for number in (np.inf, np.nan):
            damaged = slots.copy()
            damaged[num_tiles - 1, place] = number
            assert not slots_are_summed(damaged, num_tiles, tiles_per_block, first, last, gradient)
