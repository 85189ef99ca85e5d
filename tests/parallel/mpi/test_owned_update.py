"""Updates by owners on any number of ranks have the bits of one process; the ranks are threads that exchange arrays."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from partrain.config.schema.optimizer import Optimizer
from partrain.data.split_name import SplitName
from partrain.errors import MomentsLost
from partrain.network.optimizer import ParameterOptimizer
from partrain.network.parameter_groups import ParameterGroups
from partrain.parallel.mpi.compute_group import MpiComputeGroup
from partrain.parallel.mpi.owned_update import OwnedUpdate
from partrain.parallel.mpi.owner_exchange import OwnerExchange
from partrain.parallel.mpi.ownership import Ownership
from partrain.parallel.mpi.step_bytes import step_bytes
from partrain.parallel.update.node_sums import NodeSums
from partrain.parallel.update.parameter_update import NotFinite, ParameterUpdate
from partrain.parallel.update.piece_plan import Part
from partrain.parallel.workers.commands import Command, Operation
from partrain.parallel.workers.in_process_group import InProcessGroup
from partrain.parallel.workers.tile_computer import Computation
from partrain.system.signals import Interruption
from tests.optimizers import optimizer_of
from tests.parallel.mpi.simulated_ranks import SimulatedRank, Wires, run_together

BATCH, BLOCK = 200, 3  # 67 blocks; the last one has two examples
BATCHES = (200, 131, 200, 4)  # in the last one most ranks have no block
KINDS = [("fast", "float32"), ("loops", "float64")]


class Rank:
    """A rank with its own arrays: what a training on it needs."""

    def __init__(self, computation: Computation, communicator: SimulatedRank, owned: Part, num_threads: int) -> None:
        c, self.communicator = computation, communicator
        self.arrays, self.network = c.arrays, c.network
        self.arrays["parameters"][:] = c.network.parameters.initial_values(0, c.dtype)
        self.adam = adam_of(c)
        self.ownership = Ownership.of(owned, c.network, self.adam.groups, c.tiling, communicator.size)
        sums = NodeSums(
            c.network, c.kernels, c.arrays, c.tiling, c.dtype, self.adam.groups, owned, 2, BATCH, num_threads
        )
        exchange = OwnerExchange(self.ownership, communicator, c.arrays, sums)
        signals = Interruption(), Interruption()
        self.group = MpiComputeGroup(
            InProcessGroup(c), communicator, c.network, c.arrays, c.tiling, *signals, owners=exchange
        )
        common = c.network, c.kernels, c.arrays, c.tiling, c.dtype
        self.update = OwnedUpdate(*common, self.adam, 1, exchange)
        self.outcomes: list[NotFinite | None] = []
        self.gradient_sum = b""

    def make_steps(self, *numbers_of_examples: int) -> None:
        for step, number in enumerate(numbers_of_examples, start=1):
            self.group.run([Command(Operation.GRADIENTS, SplitName.TRAIN, 0, number)])
            self.outcomes.append(self.update.apply(number, step))
        self.gradient_sum = self.update.gradient_sum(number).tobytes()

    def close(self) -> None:
        self.update.close()
        self.group.close()


def adam_of(c: Computation) -> ParameterOptimizer:
    parameters, tile = c.network.parameters, c.tiling.tile_size
    return optimizer_of(c.arrays["parameters"], Optimizer(lr=0.01), parameters=parameters, tile=tile)


def alone(c: Computation, *numbers_of_examples: int) -> tuple[bytes, ...]:
    """Return parameters, moments, losses and the last gradient of one process."""
    group, adam = InProcessGroup(c), adam_of(c)
    update = ParameterUpdate(c.network, c.kernels, c.arrays, c.tiling, c.dtype, adam, 1)
    for step, number in enumerate(numbers_of_examples, start=1):
        group.run([Command(Operation.GRADIENTS, SplitName.TRAIN, 0, number)])
        assert update.apply(number, step) is None
    update.close()
    losses, gradient = c.arrays["losses"].tobytes(), update.gradient_sum(number).tobytes()
    return c.arrays["parameters"].tobytes(), *(m.tobytes() for m in update.moments.newest()), losses, gradient


def whole(c: Computation) -> Part:
    return Part.whole(c.network)


def without_the_largest_layer(c: Computation) -> Part:
    return Part(True, whole(c).layers[1:])


Ranks = Callable[..., list[Rank]]


@pytest.fixture
def make_ranks(make_computation: Callable[..., Computation]) -> Iterator[Ranks]:
    """Return what makes ranks; those of a kind share their computations with later ones."""
    made: list[Rank] = []
    computations: dict[tuple[str, str], list[Computation]] = {}

    def make(
        number: int,
        owned: Callable[[Computation], Part] = whole,
        kernels: str = "fast",
        dtype: str = "float32",
        num_threads: int = 1,
    ) -> list[Rank]:
        there = computations.setdefault((kernels, dtype), [])
        while len(there) < number:
            there.append(make_computation(kernels=kernels, dtype=dtype, batch_size=BATCH, block=BLOCK))
        communicators = Wires(number).ranks()
        ranks = [
            Rank(c, communicator, owned(c), num_threads) for c, communicator in zip(there, communicators, strict=False)
        ]
        made.extend(ranks)
        return ranks

    yield make
    for rank in made:
        rank.close()


def make_steps(ranks: list[Rank], *numbers_of_examples: int) -> None:
    calls = [functools.partial(rank.make_steps, *numbers_of_examples) for rank in ranks]
    assert run_together(calls) == [None] * len(ranks)


def assert_equal(ranks: list[Rank], expected: tuple[bytes, ...]) -> None:
    for rank in ranks:
        assert rank.arrays["parameters"].tobytes() == expected[0]
        assert rank.arrays["losses"].tobytes() == expected[3]
        assert rank.gradient_sum == expected[4]
    assert tuple(m.tobytes() for m in ranks[0].update.moments.newest()) == expected[1:3]


def test_any_number_of_ranks_has_the_bits_of_one_process(
    make_ranks: Ranks, make_computation: Callable[..., Computation]
) -> None:
    expected = alone(make_computation(batch_size=BATCH, block=BLOCK), *BATCHES)
    for number in (1, 2, 3, 4, 7, 8, 31, 64):
        ranks = make_ranks(number)
        make_steps(ranks, *BATCHES)
        assert_equal(ranks, expected)


@pytest.mark.parametrize(("kernels", "dtype"), KINDS)
@pytest.mark.parametrize("owned", [whole, without_the_largest_layer])
def test_parameters_without_owners_have_the_same_bits(
    make_ranks: Ranks, make_computation: Callable[..., Computation], kernels: str, dtype: str, owned: Any
) -> None:
    kind = {"kernels": kernels, "dtype": dtype}
    expected = alone(make_computation(batch_size=BATCH, block=BLOCK, **kind), *BATCHES)
    ranks = make_ranks(3, owned, **kind, num_threads=2)
    make_steps(ranks, *BATCHES)
    assert_equal(ranks, expected)


@pytest.mark.parametrize(("number", "num_examples"), [(2, 200), (3, 192), (8, 24), (64, 200)])
def test_rank_sends_two_to_three_times_the_parameters_whatever_the_batch(
    make_ranks: Ranks, number: int, num_examples: int
) -> None:
    ranks = make_ranks(number)
    make_steps(ranks, num_examples)
    ownership = ranks[0].ownership
    plan = step_bytes(ranks[0].network, num_examples, ownership.tiling, "float32", number, ownership)
    for rank, planned in zip(ranks, plan, strict=True):
        communicator = rank.communicator
        assert communicator.num_messages == 3 * (number - 1)  # the last ones are those of `gradient_sum`
        sent = communicator.num_bytes - communicator.contributed * (number - 1)
        assert 0 <= sent - planned.total < 16 * number  # each message is rounded up to 8 bytes
        assert (planned.sums + planned.parameters) / rank.arrays["parameters"].nbytes <= 3


@pytest.mark.parametrize("place", [0, -1])
def test_gradient_that_is_not_finite_changes_nothing_on_any_rank(make_ranks: Ranks, place: int) -> None:
    ranks = make_ranks(3)
    make_steps(ranks, BATCH)
    before = [(rank.arrays["parameters"].tobytes(), rank.adam.first_moment.tobytes()) for rank in ranks]
    name = [p.name for p in ranks[0].network.parameters][place]

    def spoil(rank: Rank) -> None:
        rank.group.run([Command(Operation.GRADIENTS, SplitName.TRAIN, 0, BATCH)])
        for first, last, group in rank.ownership.pieces[rank.communicator.rank]:
            places = np.arange(first, last) - first
            wanted = rank.network.parameters.start(name)
            if first <= wanted < last and group == 0:
                rank.group.owners.sum[places[wanted - first]] = np.nan  # type: ignore[union-attr]
        rank.outcomes.append(rank.update.apply(BATCH, 2))

    assert run_together([functools.partial(spoil, rank) for rank in ranks]) == [None] * 3
    assert [rank.outcomes[-1] for rank in ranks] == [NotFinite(name, is_gradient=True)] * 3
    assert [(r.arrays["parameters"].tobytes(), r.adam.first_moment.tobytes()) for r in ranks] == before


def test_new_parameter_that_is_not_finite_is_known_to_all_ranks(make_ranks: Ranks) -> None:
    ranks = make_ranks(3)
    place = ranks[1].ownership.pieces[1][0].first
    ranks[1].adam.first_moment[place] = np.inf
    make_steps(ranks, BATCH)
    name = ranks[0].update.first_not_finite(ranks[0].arrays["parameters"])
    assert name is not None
    assert [rank.outcomes for rank in ranks] == [[NotFinite(name, is_gradient=False)]] * 3


def test_moments_that_a_rank_does_not_offer_are_lost(make_ranks: Ranks) -> None:
    ranks = make_ranks(3)
    make_steps(ranks, BATCH)
    ranks[1].communicator.offer(lambda step: None)
    with pytest.raises(MomentsLost, match="the moments of step 1 that rank 1 owns"):
        ranks[0].update.moments.newest()


def test_groups_of_the_optimizer_keep_their_spans(make_computation: Callable[..., Computation]) -> None:
    c = make_computation(block=BLOCK)
    groups = ParameterGroups(c.network.parameters, Optimizer(weight_decay=0.1, weight_decay_exclude=["bias"]))
    for number in (1, 2, 7, 64):
        ownership = Ownership.of(whole(c), c.network, groups, c.tiling, number)
        spans = [span for piece in ownership.pieces for span in piece]
        owned = [(k, group) for first, last, group in spans for k in range(first, last)]
        assert owned == [(k, group) for first, last, group in groups.spans for k in range(first, last)]
        sizes = [ownership.size_of(rank) for rank in range(number)]
        assert max(sizes) - min(sizes) <= 1
