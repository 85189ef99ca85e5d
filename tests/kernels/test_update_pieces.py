from __future__ import annotations

import numba
import numpy as np
import pytest

from partrain.kernels.simd.vectors import LANES
from partrain.kernels.update_pieces import magnitude


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
