from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from partrain.kernels import node_sums
from partrain.parallel.update.node_sums import NodeSums
from partrain.parallel.update.piece_plan import Part
from partrain.parallel.update.reduction import GradientReduction
from partrain.parallel.workers.tile_computer import Computation


def test_thread_that_keeps_the_arguments_of_earlier_sums_computes_the_newest(
    make_computation: Callable[..., Computation], monkeypatch: pytest.MonkeyPatch
) -> None:
    c = make_computation(batch_size=60, block=3)
    rng = np.random.Generator(np.random.Philox(key=5))
    for name, array in c.arrays.items():
        if name == "tile_sums" or name.startswith("dense"):
            array[...] = rng.standard_normal(array.shape)
    assert c.groups is not None
    common = c.network, c.kernels, c.arrays, c.tiling, c.dtype
    sums, reduction = NodeSums(*common, c.groups, Part.whole(c.network), 2, 60, 1), GradientReduction(*common)
    kept: list[tuple[Any, ...]] = []
    kernel = node_sums.sum_nodes

    def compute(*arguments: Any) -> None:
        kept.append(arguments)
        kernel(*kept[0])

    monkeypatch.setattr(node_sums, "sum_nodes", compute)
    for nodes in ([(0, 12)], [(24, 48), (48, 60)], [(12, 15)]):
        expected = [reduction.reduce(last - first, first).tobytes() for first, last in nodes]
        assert [sum_U.tobytes() for sum_U in sums.compute(nodes)] == expected
