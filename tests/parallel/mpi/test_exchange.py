from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from partrain.config.reader import read_config
from partrain.data.split_name import SplitName
from partrain.errors import FailedRun
from partrain.network.network import Network
from partrain.parallel.mpi.compute_group import MpiComputeGroup
from partrain.parallel.mpi.exchange import exchanged_arrays, step_bytes
from partrain.parallel.workers.commands import Command, Operation
from partrain.parallel.workers.in_process_group import InProcessGroup
from partrain.parallel.workers.tile_computer import Computation
from partrain.parallel.workers.tiles import Tiling
from partrain.system.signals import Interruption
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
def test_step_of_mnist_contributes_less_than_200_kB(num_ranks: int) -> None:
    config = read_config(ROOT / "configs/mnist.yaml")
    network = Network(config.network, (1, 28, 28), 10)
    assert sum(step_bytes(network, 32, Tiling(4), "float32", num_ranks)) < 200_000


class FakeRanks:
    """A rank that is a thread, and meets the others at a barrier."""

    launcher_has_ended = False

    def __init__(self, rank: int, buffers: list[Any], barrier: threading.Barrier) -> None:
        self.rank, self.size = rank, len(buffers)
        self._buffers, self._barrier = buffers, barrier
        self.num_bytes = 0

    def allgatherv(self, buffer: NDArray[np.uint8], counts: Sequence[int], places: Sequence[int]) -> None:
        self._buffers[self.rank] = buffer
        self.num_bytes = counts[self.rank]
        self._barrier.wait(60)
        pieces = [self._buffers[k][places[k] : places[k] + counts[k]].copy() for k in range(self.size)]
        self._barrier.wait(60)
        for place, piece in zip(places, pieces, strict=True):
            buffer[place : place + len(piece)] = piece


class RankThreads:
    """Ranks with a computation each, that carry out the same commands."""

    def __init__(self, computations: list[Computation]) -> None:
        size = len(computations)
        buffers, barrier = [None] * size, threading.Barrier(size)
        self.computations = computations
        self.ranks = [FakeRanks(rank, buffers, barrier) for rank in range(size)]
        self.received, self.agreed = ([Interruption() for _ in range(size)] for _ in range(2))
        self.groups = [
            MpiComputeGroup(InProcessGroup(c), ranks, c.network, c.arrays, c.tiling, received, agreed)
            for c, ranks, received, agreed in zip(computations, self.ranks, self.received, self.agreed, strict=True)
        ]

    def run(self, commands: list[Command]) -> list[BaseException | None]:
        failures: list[BaseException | None] = [None] * len(self.groups)

        def work(rank: int) -> None:
            try:
                self.groups[rank].run(commands)
            except FailedRun as error:
                failures[rank] = error

        threads = [threading.Thread(target=work, args=(rank,)) for rank in range(len(self.groups))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return failures


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
        planned = step_bytes(alone.network, 20, alone.tiling, "float32", num_ranks)
        assert [ranks.num_bytes for ranks in threads.ranks] == planned


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
