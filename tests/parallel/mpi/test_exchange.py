from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

from partrain.config.reader import read_config
from partrain.data.split_name import SplitName
from partrain.network.network import Network
from partrain.parallel.mpi.compute_group import MpiComputeGroup
from partrain.parallel.mpi.exchange import exchanged_arrays
from partrain.parallel.mpi.step_bytes import step_bytes
from partrain.parallel.workers.commands import Command, Operation
from partrain.parallel.workers.in_process_group import InProcessGroup
from partrain.parallel.workers.tile_computer import Computation
from partrain.parallel.workers.tiles import Tiling
from partrain.system.signals import Interruption
from tests.parallel.mpi.simulated_ranks import Wires, run_together
from tests.program import ROOT


@pytest.mark.parametrize(
    ("num_examples", "tile", "num_ranks"), [(32, 4, 3), (20, 3, 2), (20, 3, 7), (5, 4, 4), (1, 4, 2)]
)
def test_ranks_share_all_examples_between_tiles(num_examples: int, tile: int, num_ranks: int) -> None:
    shares = [Tiling(tile).rank_share(0, num_examples, rank, num_ranks) for rank in range(num_ranks)]
    assert [shares[0][0], *(last for _, last in shares)] == [*(first for first, _ in shares), num_examples]
    assert all(first % tile == 0 or first == last for first, last in shares)
    tiles = [-(-(last - first) // tile) for first, last in shares]
    assert max(tiles) - min(tiles) <= 1


@pytest.mark.parametrize("num_ranks", [2, 3, 8, 64])
def test_step_of_mnist_sends_less_than_200_kB_to_each_rank(num_ranks: int) -> None:
    config = read_config(ROOT / "configs/mnist.yaml")
    network = Network(config.network, (1, 28, 28), 10)
    sent = step_bytes(network, 32, Tiling(4), "float32", num_ranks, None)
    assert sum(of_rank.total for of_rank in sent) < 200_000 * (num_ranks - 1)


class RankThreads:
    """Ranks with a computation each, that carry out the same commands."""

    def __init__(self, computations: list[Computation]) -> None:
        size = len(computations)
        self.computations = computations
        self.ranks = Wires(size).ranks()
        self.received, self.agreed = ([Interruption() for _ in range(size)] for _ in range(2))
        self.groups = [
            MpiComputeGroup(InProcessGroup(c), ranks, c.network, c.arrays, c.tiling, received, agreed)
            for c, ranks, received, agreed in zip(computations, self.ranks, self.received, self.agreed, strict=True)
        ]

    def run(self, commands: list[Command]) -> list[BaseException | None]:
        return run_together([functools.partial(group.run, commands) for group in self.groups])


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 9])
@pytest.mark.parametrize("operation", [Operation.GRADIENTS, Operation.EVALUATION])
def test_every_rank_gets_what_one_process_computes(
    make_computation: Callable[..., Computation], num_ranks: int, operation: Operation
) -> None:
    alone = make_computation()
    last = 20 if operation == Operation.GRADIENTS else 50
    split = SplitName.TRAIN if operation.is_step else SplitName.TEST
    commands = [Command(operation, split, first, min(first + 30, last)) for first in range(0, last, 30)]
    InProcessGroup(alone).run(commands)
    threads = RankThreads([make_computation() for _ in range(num_ranks)])
    assert threads.run(commands) == [None] * num_ranks
    for computation in threads.computations:
        for name in exchanged_arrays(alone.network, operation):
            assert computation.arrays[name].tobytes() == alone.arrays[name].tobytes(), name
    if operation == Operation.GRADIENTS:
        for ranks, planned in zip(
            threads.ranks, step_bytes(alone.network, 20, alone.tiling, "float32", num_ranks, None), strict=True
        ):
            assert 0 <= ranks.num_bytes - planned.total < 8 * num_ranks  # each message is rounded up to 8 bytes


def test_signal_to_one_rank_is_known_to_all_after_the_same_exchange(
    make_computation: Callable[..., Computation],
) -> None:
    threads = RankThreads([make_computation() for _ in range(3)])
    commands = [Command(Operation.GRADIENTS, SplitName.TRAIN, 0, 20)]
    threads.run(commands)
    threads.received[1].received = 15
    assert [agreed.received for agreed in threads.agreed] == [None] * 3
    threads.run(commands)
    assert [agreed.received for agreed in threads.agreed] == [15] * 3


def test_rank_whose_launcher_has_ended_stops_all(make_computation: Callable[..., Computation]) -> None:
    threads = RankThreads([make_computation() for _ in range(2)])
    threads.ranks[1].launcher_has_ended = True
    threads.run([Command(Operation.GRADIENTS, SplitName.TRAIN, 0, 20)])
    assert [agreed.received for agreed in threads.agreed] == [15] * 2


def test_ranks_with_other_parameters_are_found_at_an_evaluation(make_computation: Callable[..., Computation]) -> None:
    threads = RankThreads([make_computation() for _ in range(3)])
    threads.computations[2].arrays["parameters"][0] += 1
    failures = threads.run([Command(Operation.EVALUATION, SplitName.TEST, 0, 50)])
    assert all("rank 2 and rank 0 have other parameters" in str(failure) for failure in failures)


def test_ranks_that_are_out_of_step_fail(make_computation: Callable[..., Computation]) -> None:
    threads = RankThreads([make_computation() for _ in range(2)])
    threads.groups[1]._num_exchanges += 1
    failures = threads.run([Command(Operation.GRADIENTS, SplitName.TRAIN, 0, 20)])
    assert all("rank 1 and rank 0 exchange another message" in str(failure) for failure in failures)
