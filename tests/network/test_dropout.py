"""Shapes: N examples; C, H, W channels, rows, columns; E logits; T tiles; K numbers of a slot."""

from __future__ import annotations

import numpy as np
import pytest

from partrain.config.schema.layers import Dense, Dropout, Flatten
from tests.network.networks import (
    DROPOUT_DESCRIPTIONS,
    NETWORKS,
    Batch,
    build,
    drawn,
)

pytestmark = pytest.mark.usefixtures("network_kernels")

BOTH = pytest.mark.parametrize("kernels", ["fast", "loops"])


WITH_DROPOUT = NETWORKS["dropout everywhere"]


@BOTH
def test_dropout_is_another_one_in_each_epoch_for_each_example_and_each_layer(kernels):
    network = build(Flatten(), Dropout(rate=0.5), Dropout(rate=0.5), Dense(units=5))
    parameters, _, labels = drawn(network, 2, dtype="float32")
    x = np.ones((2, *network.input_shape), np.float32)
    batch = Batch(network, kernels, parameters, 2, 2)
    kept = []
    for batch.epoch in (0, 1, 0):
        batch.gradient(x, labels)
        kept.append(batch.arrays["dense1.inputs"].copy())
    assert set(np.unique(kept[0])) == {0, 4}
    assert abs((kept[0] == 0).mean() - 0.75) < 0.15  # were the layers' the same, it would be a half
    assert not np.array_equal(kept[0][0], kept[0][1])
    assert not np.array_equal(kept[1], kept[0])
    assert np.array_equal(kept[2], kept[0])


def test_fast_execution_and_loops_drop_the_same_numbers():
    parameters, x, labels = drawn(WITH_DROPOUT, 6, dtype="float32")
    dropped = []
    for kernels in ("fast", "loops"):
        batch = Batch(WITH_DROPOUT, kernels, parameters, 3, 6)
        batch.gradient(np.abs(x) + 1, labels)
        dropped.append({name: a == 0 for name, a in batch.arrays.items() if name.startswith("dense")})
    for name, fast in dropped[0].items():
        assert np.array_equal(fast, dropped[1][name]), name
    assert 0.1 < dropped[0]["dense1.inputs"].mean() < 0.9


@BOTH
def test_where_nothing_is_trained_dropout_is_nothing(kernels):
    parameters, x, labels = drawn(WITH_DROPOUT, 5, dtype="float32")
    without = [d for d in DROPOUT_DESCRIPTIONS if not isinstance(d, Dropout)]
    plain = Batch(build(*without), kernels, parameters, 5, 5)
    plain.compute(x, labels, 0, 5, backward=False)
    batch = Batch(WITH_DROPOUT, kernels, parameters, 5, 5)
    batch.gradient(x, labels)  # what a training step has drawn must not stay
    assert not np.allclose(batch.logits, plain.logits, rtol=1e-2)
    batch.compute(x, labels, 0, 5, backward=False)
    np.testing.assert_allclose(batch.logits, plain.logits, rtol=1e-4, atol=1e-5)
