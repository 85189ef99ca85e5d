"""How many bytes a rank sends in a step, by part; from shapes alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from partrain.network.network import Network
from partrain.parallel.array_plan import exchange_specs
from partrain.parallel.mpi.exchange import HEADER_BYTES, array_rows, results_of
from partrain.parallel.mpi.owner_messages import OUTCOME_WORDS, StepShares, shared_arrays_of
from partrain.parallel.mpi.ownership import Ownership
from partrain.parallel.update.piece_plan import Part
from partrain.parallel.workers.commands import Operation
from partrain.parallel.workers.tiles import Range, Tiling
from partrain.system.shared_arrays import ArraySpec


@dataclass(frozen=True)
class StepBytes:
    """The bytes that a rank sends in a step to all other ranks together, without those that round a message up.

    Attributes
    ----------
    results : headers, losses and predictions.
    factors : of the dense layers that all ranks update, with the slots of tiles if all ranks update those parameters.
    sums : of the gradients of nodes, to the owners.
    parameters : the new ones, from their owner.
    """

    results: int
    factors: int
    sums: int = 0
    parameters: int = 0

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return self.results + self.factors + self.sums + self.parameters


def step_bytes(
    network: Network, batch_size: int, tiling: Tiling, dtype: str, num_ranks: int, ownership: Ownership | None
) -> list[StepBytes]:
    """Return what each rank sends in a step without norms.

    Parameters
    ----------
    ownership : the owners of the parameters; None: all ranks make the whole update.
    """
    specs = exchange_specs(network, batch_size, tiling, dtype, batch_size)

    def size(names: Sequence[str], examples: Range) -> int:
        return bytes_of_examples(specs, names, examples, tiling)

    others, results = num_ranks - 1, results_of(Operation.GRADIENTS)
    if ownership is None:
        factors = shared_arrays_of(Part(network.tile_sums.size > 0, network.dense_layers))
        shares = (tiling.rank_share(0, batch_size, rank, num_ranks) for rank in range(num_ranks))
        return [
            StepBytes(others * (HEADER_BYTES + size(results, examples)), others * size(factors, examples))
            for examples in shares
        ]
    factors, of_batch = shared_arrays_of(ownership.shared), StepShares.of(ownership, batch_size)
    owned = [ownership.size_of(rank) * np.dtype(dtype).itemsize for rank in range(num_ranks)]
    return [
        StepBytes(
            results=others * (HEADER_BYTES + OUTCOME_WORDS * 8 + size(results, examples)),
            factors=others * size(factors, examples),
            sums=len(nodes) * (sum(owned) - own),
            parameters=others * own,
        )
        for examples, nodes, own in zip(of_batch.examples, of_batch.nodes, owned, strict=True)
    ]


def bytes_of_examples(specs: Mapping[str, ArraySpec], names: Sequence[str], examples: Range, tiling: Tiling) -> int:
    """Return the bytes of what belongs to the examples in the arrays with these names."""
    if examples[0] == examples[1]:
        return 0
    rows = {name: len(range(specs[name].shape[0])[array_rows(name, *examples, tiling)]) for name in names}
    return sum(ArraySpec((rows[name], *specs[name].shape[1:]), specs[name].dtype).num_bytes for name in names)
