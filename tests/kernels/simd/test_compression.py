from __future__ import annotations

import numpy as np

from partrain.kernels.compiler.flags import kernel
from partrain.kernels.compiler.loading import load
from partrain.kernels.simd import vectors
from partrain.kernels.simd.compression import load_counts, nonzero_where_counted, num_selected, store_selected
from partrain.kernels.simd.vectors import LANES


@kernel("int64(float32[::1], int32[::1], float32[::1], int32[::1])")
def _append_selected(numbers, counts, listed_numbers, listed_counts):
    length = 0
    for i in range(0, numbers.size, LANES):
        vector, integers = vectors.load(numbers, i), load_counts(counts, i)
        mask = nonzero_where_counted(vector, integers)
        store_selected(listed_numbers, length, vector, mask)
        store_selected(listed_counts, length, integers, mask)
        length += num_selected(mask)
    return length


def test_the_lanes_of_every_mask_are_appended_side_by_side_in_their_order():
    load((_append_selected,), "float32")
    num_masks = 2 ** min(LANES, 12)
    selected = np.arange(num_masks)[:, np.newaxis] >> np.arange(LANES) & 1 == 1
    rng = np.random.default_rng(0)
    numbers = rng.standard_normal(selected.shape).astype(np.float32)
    numbers[rng.random(selected.shape) < 0.1] = np.nan
    counts = rng.integers(0, 2**31, selected.shape, np.int32)
    # What is not selected is 0, or its integer is negative, or both.
    cause = rng.integers(1, 4, selected.shape)
    numbers[~selected & (cause & 1 > 0)] = -0.0
    counts[~selected & (cause & 2 > 0)] -= 2**31 - 1
    counts[~selected & (cause & 2 > 0)] -= 1
    size = selected.sum()
    listed_numbers, listed_counts = np.empty(size + LANES, np.float32), np.empty(size + LANES, np.int32)
    length = _append_selected(numbers.reshape(-1), counts.reshape(-1), listed_numbers, listed_counts)
    assert length == size
    assert np.array_equal(listed_numbers[:size], numbers[selected], equal_nan=True)
    assert np.array_equal(listed_counts[:size], counts[selected])
