"""Plans the private memory in which a rank keeps what it exchanges with the others. Does not start MPI."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from partrain.network.network import Network
from partrain.parallel.array_plan import evaluation_specs, exchange_specs, norm_specs
from partrain.parallel.mpi.exchange import EVALUATED, HEADER_BYTES, MOST_MESSAGES, exchanged_arrays, results_of
from partrain.parallel.mpi.owner_messages import KEPT_MESSAGES, OUTCOME_WORDS, StepShares, shared_arrays_of
from partrain.parallel.mpi.ownership import Ownership
from partrain.parallel.mpi.step_bytes import bytes_of_examples
from partrain.parallel.workers.commands import Operation
from partrain.parallel.workers.tiles import Tiling


def message_bytes(
    network: Network,
    tiling: Tiling,
    dtype: str,
    batch_sizes: Sequence[int],
    operations: Sequence[Operation],
    evaluated: Sequence[int],
    num_ranks: int,
    ownership: Ownership | None,
) -> int:
    """Return the bytes that a rank keeps for its messages, at most.

    Parameters
    ----------
    batch_sizes : the sizes of batches, the whole one first.
    operations : the operations of steps.
    evaluated : the sizes of the splits that are evaluated.
    num_ranks, ownership : the number of ranks, and the owners of the parameters; None: there are none.
    """

    def size(names: Sequence[str], examples: tuple[int, int]) -> int:
        return bytes_of_examples(specs, names, examples, tiling)

    most = max(*batch_sizes, *evaluated)
    specs = exchange_specs(network, batch_sizes[0], tiling, dtype, most) | norm_specs(network, batch_sizes[0])
    specs |= evaluation_specs(network, dtype, most)
    headers = num_ranks * HEADER_BYTES
    of_evaluations = [headers + size(EVALUATED, (0, number)) for number in evaluated]
    if ownership is None:
        of_steps = [
            headers + size(exchanged_arrays(network, operation), (0, number))
            for operation in operations
            for number in batch_sizes
        ]
        return sum(sorted(of_steps + of_evaluations)[-MOST_MESSAGES:])
    first, second, most_nodes = [], [], 0
    itemsize = np.dtype(dtype).itemsize
    owned = [ownership.size_of(rank) * itemsize for rank in range(num_ranks)]
    for number in batch_sizes:
        shares = StepShares.of(ownership, number)
        nodes = [len(of_rank) for of_rank in shares.nodes]
        most_nodes = max(most_nodes, *nodes)
        second.append(
            num_ranks * OUTCOME_WORDS * 8 + size(shared_arrays_of(ownership.shared), (0, number)) + sum(owned)
        )
        for operation in operations:
            results = results_of(operation)
            sent = max(headers + num_ranks * size(results, examples) for examples in shares.examples)
            received = headers + size(results, (0, number)) + sum(nodes) * max(owned)
            first.append(sent + max(nodes) * sum(owned) + received)
    kept = sum(sorted(first)[-KEPT_MESSAGES:]) + sum(sorted(second)[-KEPT_MESSAGES:])
    return sum(of_evaluations) + kept + most_nodes * network.parameters.size * itemsize
