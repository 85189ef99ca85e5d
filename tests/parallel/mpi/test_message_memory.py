from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from partrain.config.reader import read_config
from partrain.network.network import Network
from partrain.network.parameter_groups import ParameterGroups
from partrain.parallel.array_plan import exchange_specs, norm_specs
from partrain.parallel.mpi.exchange import EVALUATED, exchanged_arrays, lay_out, results_of
from partrain.parallel.mpi.message_memory import message_bytes
from partrain.parallel.mpi.owner_messages import FirstMessage, SecondMessage, StepShares
from partrain.parallel.mpi.ownership import Ownership, choose_ownership
from partrain.parallel.workers.commands import Operation
from partrain.parallel.workers.tiles import Tiling
from tests.program import ROOT

MNIST = read_config(ROOT / "configs/mnist.yaml")
NETWORK, TILING, TEST_EXAMPLES = Network(MNIST.network, (1, 28, 28), 10), Tiling(4), 700
OPERATIONS = (Operation.GRADIENTS_WITH_NORMS, Operation.GRADIENTS)


def kept_by(rank: int, num_ranks: int, ownership: Ownership | None, batch_sizes: list[int]) -> int:
    """Return the bytes of the messages that a rank makes."""
    specs = exchange_specs(NETWORK, batch_sizes[0], TILING, "float32", TEST_EXAMPLES) | norm_specs(
        NETWORK, batch_sizes[0]
    )
    arrays: dict[str, NDArray[Any]] = {name: np.zeros(spec.shape, spec.dtype) for name, spec in specs.items()}

    def whole(names: list[str], number: int) -> int:
        shares = [TILING.rank_share(0, number, other, num_ranks) for other in range(num_ranks)]
        return lay_out(arrays, names, shares, TILING, rank).buffer.nbytes

    num_bytes = whole(list(EVALUATED), TEST_EXAMPLES)
    if ownership is None:
        return num_bytes + sum(
            whole(exchanged_arrays(NETWORK, operation), number) for operation in OPERATIONS for number in batch_sizes
        )
    first, most_nodes = [], 0
    sums_MU = np.zeros((2, NETWORK.parameters.size), np.float32)
    for number in batch_sizes:
        shares = StepShares.of(ownership, number)
        most_nodes = max(most_nodes, len(shares.nodes[rank]))
        num_bytes += SecondMessage(ownership, shares, arrays, rank).buffer.nbytes
        for operation in OPERATIONS:
            message = FirstMessage(ownership, shares, arrays, results_of(operation), sums_MU, rank)
            first.append(message.sent.nbytes + message.received.nbytes)
    return num_bytes + sum(sorted(first)[-2:]) + most_nodes * NETWORK.parameters.size * 4


@pytest.mark.parametrize(("batch_size", "num_ranks"), [(32, 2), (256, 2), (288, 3), (2048, 64)])
def test_plan_counts_the_messages_that_a_rank_keeps(batch_size: int, num_ranks: int) -> None:
    groups = ParameterGroups.of(NETWORK, MNIST.training.optimizer)
    ownership = choose_ownership(NETWORK, groups, MNIST.training, batch_size, TILING, num_ranks)
    batch_sizes = [batch_size, batch_size * 5 // 8]
    planned = message_bytes(NETWORK, TILING, "float32", batch_sizes, OPERATIONS, [TEST_EXAMPLES], num_ranks, ownership)
    kept = [kept_by(rank, num_ranks, ownership, batch_sizes) for rank in {0, 1, num_ranks - 1}]
    assert 0.95 * planned < max(kept) <= planned + 16 * num_ranks * len(batch_sizes)  # messages are rounded up
