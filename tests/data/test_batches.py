from __future__ import annotations

import numpy as np
import pytest

from partrain.data.batches import epoch_order, steps_per_epoch


@pytest.mark.parametrize(
    ("examples", "batch", "steps"),
    [(50_000, 32, 1563), (64, 32, 2), (65, 32, 3), (1, 32, 1), (7, 1, 7)],
)
def test_the_last_batch_of_an_epoch_may_be_smaller(examples, batch, steps):
    assert steps_per_epoch(examples, batch) == steps


@pytest.mark.parametrize("count", [1, 2, 1000])
def test_an_epoch_goes_through_every_example_once(count):
    order = epoch_order(count, seed=0, epoch=3)
    assert order.dtype == np.int64
    assert order.flags.c_contiguous
    assert sorted(order.tolist()) == list(range(count))


def test_each_epoch_and_each_seed_has_an_order_of_its_own():
    orders = {tuple(epoch_order(100, seed=seed, epoch=epoch).tolist()) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25
    assert tuple(range(100)) not in orders


def test_the_order_of_an_epoch_is_always_the_same():
    assert np.array_equal(epoch_order(100, seed=1, epoch=2), epoch_order(100, seed=1, epoch=2))
