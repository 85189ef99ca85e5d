from __future__ import annotations

import numba
import numpy as np
import pytest

from partrain.kernels.dense import SPAN
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
def slots_are_summed(slots_TK, num_tiles, first, last, gradient):
    return sum_slots(slots_TK, num_tiles, first, last, gradient)


@pytest.mark.parametrize("num_tiles", [1, 2, 9])
@pytest.mark.parametrize("size", [1, SPAN * LANES - 1, SPAN * LANES, 3 * SPAN * LANES + 5])
def test_slots_are_summed_in_the_order_of_the_tiles(size, num_tiles):
    first, last = 3, 3 + size
    slots = np.random.default_rng(size).standard_normal((num_tiles + 1, size + 7)).astype(np.float32)
    expected = np.zeros(size, np.float32)
    for t in range(num_tiles):
        expected += slots[t, first:last]
    gradient = np.full(size + 7, 77, np.float32)
    assert slots_are_summed(slots, num_tiles, first, last, gradient)
    assert np.array_equal(gradient[first:last], expected)
    assert (gradient[:first] == 77).all()
    assert (gradient[last:] == 77).all()
    for place in (first, last - 1):
        for number in (np.inf, np.nan):
            damaged = slots.copy()
            damaged[num_tiles - 1, place] = number
            assert not slots_are_summed(damaged, num_tiles, first, last, gradient)
