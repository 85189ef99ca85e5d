"""The messages of a step with owners carry what they must, whatever computes the sums of nodes."""

from __future__ import annotations

import numpy as np
import pytest

from partrain.config.reader import read_config
from partrain.kernels.compiler.loading import load
from partrain.network.network import Network
from partrain.network.parameter_groups import ParameterGroups
from partrain.parallel.array_plan import exchange_specs
from partrain.parallel.mpi.block_runs import MOST_NODES
from partrain.parallel.mpi.copies import Copies
from partrain.parallel.mpi.exchange import exchanged_arrays, lay_out, results_of
from partrain.parallel.mpi.owner_messages import FirstMessage, SecondMessage, StepShares
from partrain.parallel.mpi.ownership import Ownership
from partrain.parallel.mpi.step_bytes import step_bytes
from partrain.parallel.update.piece_plan import Part
from partrain.parallel.workers.commands import Operation
from partrain.parallel.workers.tiles import Tiling
from tests.program import ROOT

CONFIG = read_config(ROOT / "configs/mnist.yaml", ["network.0.conv.filters=2", "network.6.dense.units=7"])
NETWORK, TILING, NUM_EXAMPLES, NUM_RANKS = Network(CONFIG.network, (1, 28, 28), 10), Tiling(4, 8), 42, 4
SPECS = exchange_specs(NETWORK, NUM_EXAMPLES, TILING, "float32", NUM_EXAMPLES)
RANKS = range(NUM_RANKS)
Arrays = dict[str, np.ndarray]


def noise() -> Arrays:
    rng = np.random.Generator(np.random.Philox(key=1))
    return {name: rng.standard_normal(spec.shape).astype(spec.dtype) for name, spec in SPECS.items()}


def own_rows(whole: Arrays, first: int, last: int) -> Arrays:
    """Return arrays with these examples of a batch alone."""
    arrays = {name: np.zeros_like(array) for name, array in whole.items()}
    for name, array in arrays.items():
        rows = TILING.tile_range(first, last) if name == "tile_sums" else slice(first, last)
        if first < last:
            array[rows] = whole[name][rows]
    return arrays


@pytest.fixture(autouse=True, scope="module")
def _load_kernels() -> None:
    for dtype in ("float32", "float64"):
        load((*Copies.KERNELS, *FirstMessage.KERNELS), dtype)


def test_first_message_adds_sums_at_their_owners_and_second_message_gives_all_ranks_the_same() -> None:
    groups, whole = ParameterGroups.of(NETWORK, CONFIG.training.optimizer), noise()
    owned = Part(True, NETWORK.dense_layers[:1])
    ownership = Ownership.of(owned, NETWORK, groups, TILING, NUM_RANKS)
    shares = StepShares.of(ownership, NUM_EXAMPLES)
    of_ranks = [own_rows(whole, *examples) for examples in shares.examples]
    rng = np.random.Generator(np.random.Philox(key=2))
    sums = [rng.standard_normal((2, NETWORK.parameters.size)).astype(np.float32) for _ in RANKS]
    names = results_of(Operation.GRADIENTS)
    first = [FirstMessage(ownership, shares, of_ranks[rank], names, sums[rank], rank) for rank in RANKS]
    for rank, message in enumerate(first):
        message.header[:] = 10 + rank
        message.outgoing.make()
    for rank, message in enumerate(first):
        for other, sender in enumerate(first):
            begin, size = sender.offsets_out[rank], sender.counts_out[rank]
            place = message.offsets_in[other]
            assert size == message.counts_in[other]
            message.received[place : place + size] = sender.sent[begin : begin + size]
        message.incoming.make()
        message.add_sums()
        assert [header.tolist() for header in message.headers_in] == [[10 + other] * 3 for other in RANKS]
        assert all((of_ranks[rank][name] == whole[name]).all() for name in names)
    nodes = [sum_U for rank in RANKS for sum_U in sums[rank][: len(shares.nodes[rank])]]
    for left, right in shares.additions:
        nodes[left] = nodes[left] + nodes[right]
    for rank, message in enumerate(first):
        expected = np.zeros(ownership.size_of(rank), np.float32)
        ownership.gather(rank, nodes[0], expected)
        assert message.sum.tobytes() == expected.tobytes()

    second = [SecondMessage(ownership, shares, of_ranks[rank], rank) for rank in RANKS]
    new = rng.standard_normal(NETWORK.parameters.size).astype(np.float32)
    for rank, sent in enumerate(second):
        ownership.gather(rank, new, sent.owned[rank])
        sent.outgoing.make()
    for rank, filled in enumerate(second):
        for other, sender_ in enumerate(second):
            piece = slice(filled.offsets[other], filled.offsets[other] + filled.counts[other])
            filled.buffer[piece] = sender_.buffer[piece]
        filled.incoming.make()
        filled.new_parameters.make()
        arrays = of_ranks[rank]
        for span in owned.spans(NETWORK, groups):
            assert (arrays["parameters"][span.first : span.last] == new[span.first : span.last]).all()
        for kind in ("inputs", "deltas"):
            assert (arrays[f"dense2.{kind}"] == whole[f"dense2.{kind}"]).all()


def test_any_number_of_ranks_sends_two_messages_to_each_other_rank_with_the_planned_bytes() -> None:
    num_examples, tiling = 260, Tiling(4, 4)  # 65 blocks
    groups, names = ParameterGroups.of(NETWORK, CONFIG.training.optimizer), results_of(Operation.GRADIENTS)
    specs = exchange_specs(NETWORK, num_examples, tiling, "float32", num_examples)
    arrays = {name: np.zeros(spec.shape, spec.dtype) for name, spec in specs.items()}
    sums = np.zeros((MOST_NODES, NETWORK.parameters.size), np.float32)
    for num_ranks in range(1, 65):
        ownership = Ownership.of(Part.whole(NETWORK), NETWORK, groups, tiling, num_ranks)
        shares = StepShares.of(ownership, num_examples)
        planned = step_bytes(NETWORK, num_examples, tiling, "float32", num_ranks, ownership)
        assert all(of_rank.factors == 0 for of_rank in planned)
        assert max(of_rank.sums + of_rank.parameters for of_rank in planned) <= 3 * arrays["parameters"].nbytes
        for rank in {0, num_ranks // 2, num_ranks - 1}:
            first = FirstMessage(ownership, shares, arrays, names, sums, rank)
            second = SecondMessage(ownership, shares, arrays, rank)
            assert len(first.counts_out) == len(second.counts) == num_ranks
            sent = sum(first.counts_out) - first.counts_out[rank] + (num_ranks - 1) * second.counts[rank]
            assert 0 <= sent - planned[rank].total < 16 * num_ranks  # each message is rounded up to 8 bytes


def test_message_to_all_ranks_fills_in_what_the_others_have() -> None:
    whole, names = noise(), exchanged_arrays(NETWORK, Operation.GRADIENTS)
    shares = [TILING.rank_share(0, NUM_EXAMPLES, rank, NUM_RANKS) for rank in RANKS]
    of_ranks = [own_rows(whole, *share) for share in shares]
    messages = [lay_out(of_ranks[rank], names, shares, TILING, rank) for rank in RANKS]
    for message in messages:
        message.outgoing.make()
    for rank, message in enumerate(messages):
        for other, sender in enumerate(messages):
            piece = slice(message.offsets[other], message.offsets[other] + message.counts[other])
            message.buffer[piece] = sender.buffer[piece]
        message.incoming.make()
        assert all((of_ranks[rank][name] == whole[name]).all() for name in names)


def test_copies_keep_the_bits_of_numbers_of_any_type() -> None:
    sources = [np.arange(5.0), np.array([np.nan, -0.0], np.float32), np.arange(3), np.zeros((0, 2), np.float32)]
    targets = [np.zeros_like(source) for source in sources]
    Copies(list(zip(targets, sources, strict=True))).make()
    assert [target.tobytes() for target in targets] == [source.tobytes() for source in sources]
