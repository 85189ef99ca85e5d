from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from partrain.config.reader import read_config
from partrain.config.schema.optimizer import Optimizer
from partrain.network.network import Network
from partrain.network.parameter_groups import ParameterGroups
from partrain.parallel.mpi.ownership import Ownership, choose_ownership
from partrain.parallel.update.piece_plan import Part
from partrain.parallel.workers.tiles import Tiling
from tests.program import ROOT

MNIST = read_config(ROOT / "configs/mnist.yaml")
NETWORK = Network(MNIST.network, (1, 28, 28), 10)


def chosen(batch_size: int, num_ranks: int, **training: Any) -> Ownership | None:
    settings = MNIST.training.model_copy(update=training)
    groups = ParameterGroups.of(NETWORK, settings.optimizer)
    return choose_ownership(NETWORK, groups, settings, batch_size, Tiling(4), num_ranks)


def names(part: Part) -> list[str]:
    return ["slots"] * part.has_slots + [layer.name for layer in part.layers]


@pytest.mark.parametrize(
    ("batch_size", "num_ranks", "owned", "shared"),
    [
        (256, 2, ["slots", "dense1", "dense2"], []),
        (2048, 64, ["slots", "dense1", "dense2"], []),
        (128, 2, ["slots", "dense2"], ["dense1"]),
    ],
)
def test_parameters_have_owners_where_sums_are_less_than_factors(
    batch_size: int, num_ranks: int, owned: list[str], shared: list[str]
) -> None:
    ownership = chosen(batch_size, num_ranks)
    assert ownership is not None
    assert (names(ownership.owned), names(ownership.shared)) == (owned, shared)


@pytest.mark.parametrize(
    ("batch_size", "num_ranks", "training"),
    [
        (32, 2, {}),
        (32, 4, {}),
        (96, 4, {}),
        (64, 2, {}),
        (2048, 1, {}),
        (2048, 2, {"optimizer": Optimizer(name="muon", lr=0.02, momentum=0.95, adam_lr=0.001)}),
    ],
    ids=["one block", "one block, four ranks", "fewer blocks than ranks", "factors are smaller", "one rank", "Muon"],
)
def test_all_ranks_make_the_whole_update(batch_size: int, num_ranks: int, training: dict[str, Any]) -> None:
    assert chosen(batch_size, num_ranks, **training) is None


def test_what_a_rank_owns_is_gathered_and_scattered() -> None:
    ownership = chosen(256, 3)
    assert ownership is not None
    vector = np.arange(NETWORK.parameters.size)
    copy = np.zeros_like(vector)
    for rank in range(3):
        part = np.empty(ownership.size_of(rank), vector.dtype)
        ownership.gather(rank, vector, part)
        assert [ownership.element(rank, place) for place in (0, len(part) - 1)] == [part[0], part[-1]]
        ownership.scatter(rank, part, copy)
    assert (copy == vector).all()
