"""The two messages of a step with owners: results and sums of nodes, and then the new parameters.

    first, one Alltoallv     header, results of this rank's examples, its nodes' sums of what the receiver owns
    second, one Allgatherv   header, factors and slots of the parameters that all ranks update, what this rank owns

MPI moves bytes and never adds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.kernels.message_parts import add_parts
from partrain.parallel.mpi.block_runs import additions, block_runs, examples_of
from partrain.parallel.mpi.copies import Copies
from partrain.parallel.mpi.exchange import HEADER_BYTES, array_rows, whole_words
from partrain.parallel.mpi.ownership import Ownership
from partrain.parallel.update.piece_plan import Part
from partrain.parallel.workers.tiles import Range

Array = NDArray[Any]

# Messages of each kind that are kept: those of whole batches, and of the last one of an epoch.
KEPT_MESSAGES = 2
# The header of the second message: the number of the exchange, and the first element of the flat vector whose gradient,
# new value, or second moment is not finite; NONE: all that the rank owns are finite.
OUTCOME_WORDS = 4
SEQUENCE, GRADIENT, PARAMETER, SECOND_MOMENT = range(OUTCOME_WORDS)
NONE = np.iinfo(np.int64).max


@dataclass(frozen=True)
class StepShares:
    """How a batch is shared between ranks with owners.

    Attributes
    ----------
    examples : the examples of each rank.
    nodes : the nodes of each rank, by their examples.
    additions : how the sums of all nodes are added (`block_runs.additions`).
    """

    examples: tuple[Range, ...]
    nodes: tuple[tuple[Range, ...], ...]
    additions: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, ownership: Ownership, num_examples: int) -> StepShares:
        """Return the shares of a batch of this size."""
        tiling = ownership.tiling
        runs = block_runs(num_examples, tiling, ownership.num_ranks)
        nodes = tuple(tuple(examples_of((node,), num_examples, tiling) for node in run) for run in runs)
        order = additions(tuple(node for run in runs for node in run), len(tiling.blocks(num_examples)))
        return cls(tuple(examples_of(run, num_examples, tiling) for run in runs), nodes, tuple(order))


def shared_arrays_of(part: Part) -> list[str]:
    """Return the names of the arrays from which all ranks update a part of the parameters."""
    factors = [f"{layer.name}.{kind}" for layer in part.layers for kind in ("inputs", "deltas")]
    return [*(["tile_sums"] if part.has_slots else []), *factors]


class FirstMessage:
    """The first message of a step, laid out for one rank.

    Parameters
    ----------
    ownership : the owners.
    shares : how the batch is shared.
    arrays : the shared arrays; the message keeps views of them.
    names : the arrays with the results of examples.
    sums_MU : where this rank's sums of nodes are; the message keeps views of it.
    rank : the rank that sends and receives it.

    Attributes
    ----------
    sent, received : the buffers; `counts_out`, `counts_in`, `offsets_out`, `offsets_in` say what is where, by rank.
    header : this rank's header, for all receivers.
    headers_in : the received headers, by rank.
    outgoing : copies header, results and sums to the buffer.
    incoming : copies the results of others from the buffer.
    sum : the sum of what this rank owns, over all nodes, after `add_sums`.
    """

    KERNELS = (add_parts,)

    def __init__(
        self,
        ownership: Ownership,
        shares: StepShares,
        arrays: Mapping[str, Array],
        names: Sequence[str],
        sums_MU: Array,
        rank: int,
    ) -> None:
        ranks, dtype = range(ownership.num_ranks), sums_MU.dtype.name
        regions = [[arrays[name][slice(*examples)] for name in names] for examples in shares.examples]

        def counts(sender: int, receiver: int) -> int:
            sums = len(shares.nodes[sender]) * ownership.size_of(receiver) * np.dtype(dtype).itemsize
            return whole_words(HEADER_BYTES + sum(region.nbytes for region in regions[sender]) + sums)

        def cut(buffer: Array, start: int, sender: int, receiver: int) -> tuple[Array, list[Array], list[Array]]:
            num_nodes, size = len(shares.nodes[sender]), ownership.size_of(receiver)
            return _cut(buffer, start, regions[sender], num_nodes, size, dtype)

        self.counts_out, self.counts_in = ([counts(rank, other) for other in ranks], [counts(k, rank) for k in ranks])
        self.offsets_out, self.offsets_in = _offsets(self.counts_out), _offsets(self.counts_in)
        self.sent, self.received = (np.zeros(sum(c), np.uint8) for c in (self.counts_out, self.counts_in))
        self.header, self.headers_in = np.zeros(HEADER_BYTES // 8, np.int64), []
        outgoing: list[tuple[Array, Array]] = []
        incoming: list[tuple[Array, Array]] = []
        sums_in: list[Array] = []
        for other in ranks:
            header, results, sums = cut(self.sent, self.offsets_out[other], rank, other)
            outgoing += [(header, self.header), *zip(results, regions[rank], strict=True)]
            for target, sum_U in zip(sums, sums_MU, strict=False):
                outgoing += [(part, of_sum) for of_sum, part in ownership.parts(other, sum_U, target)]
            header, results, sums = cut(self.received, self.offsets_in[other], other, rank)
            self.headers_in.append(header)
            sums_in += sums
            if other != rank:
                incoming += zip(regions[other], results, strict=True)
        self.outgoing, self.incoming = Copies(outgoing), Copies(incoming)
        self.sum = sums_in[0]
        self._numbers = self.received.view(dtype)
        places = [(s.ctypes.data - self.received.ctypes.data) // s.itemsize for s in sums_in]
        pairs = [(places[left], places[right]) for left, right in shares.additions]
        self._additions = np.array(pairs, np.int64).reshape(-1, 2)

    def add_sums(self) -> None:
        """Add the received sums in the order of the tree."""
        add_parts(self._numbers, self._additions, self.sum.size)


class SecondMessage:
    """The second message of a step, laid out for one rank; the parameters are those of `FirstMessage`.

    Attributes
    ----------
    buffer, counts, offsets : as of `exchange.Message`.
    outcomes : the headers, by rank.
    outgoing, incoming : copies factors and slots to the buffer, and those of others from it.
    owned : what each rank owns.
    new_parameters : copies what all ranks own from the buffer to the parameters.
    """

    def __init__(self, ownership: Ownership, shares: StepShares, arrays: Mapping[str, Array], rank: int) -> None:
        parameters = arrays["parameters"]
        dtype, itemsize = parameters.dtype.name, parameters.itemsize
        names, tiling = shared_arrays_of(ownership.shared), ownership.tiling
        regions = [
            [arrays[name][array_rows(name, *examples, tiling)] if examples[0] < examples[1] else arrays[name][:0]
             for name in names]
            for examples in shares.examples
        ]  # fmt: skip
        sizes = [ownership.size_of(other) for other in range(ownership.num_ranks)]
        self.counts = [
            whole_words(OUTCOME_WORDS * 8 + sum(region.nbytes for region in of_rank) + size * itemsize)
            for of_rank, size in zip(regions, sizes, strict=True)
        ]
        self.offsets = _offsets(self.counts)
        self.buffer = np.zeros(sum(self.counts), np.uint8)
        self.outcomes, self.owned = [], []
        outgoing: list[tuple[Array, Array]] = []
        incoming: list[tuple[Array, Array]] = []
        updated: list[tuple[Array, Array]] = []
        for other, (start, of_rank, size) in enumerate(zip(self.offsets, regions, sizes, strict=True)):
            header, copies, (owned,) = _cut(self.buffer, start, of_rank, 1, size, dtype, OUTCOME_WORDS)
            self.outcomes.append(header)
            self.owned.append(owned)
            updated += ownership.parts(other, parameters, owned)
            if other == rank:
                outgoing += zip(copies, of_rank, strict=True)
            else:
                incoming += zip(of_rank, copies, strict=True)
        self.outgoing, self.incoming, self.new_parameters = Copies(outgoing), Copies(incoming), Copies(updated)


def _offsets(counts: Sequence[int]) -> list[int]:
    return [sum(counts[:k]) for k in range(len(counts))]


def _cut(
    buffer: NDArray[np.uint8], start: int, regions: Sequence[Array], num_vectors: int, size: int, dtype: str,
    num_words: int = HEADER_BYTES // 8,
) -> tuple[NDArray[np.int64], list[Array], list[Array]]:  # fmt: skip
    """Return views of a message: its header, arrays like `regions`, and vectors of `size` numbers."""
    header = buffer[start : start + 8 * num_words].view(np.int64)
    place = start + 8 * num_words
    arrays, vectors = [], []
    for region in regions:
        arrays.append(buffer[place : place + region.nbytes].view(region.dtype).reshape(region.shape))
        place += region.nbytes
    num_bytes = size * np.dtype(dtype).itemsize
    for _ in range(num_vectors):
        vectors.append(buffer[place : place + num_bytes].view(dtype))
        place += num_bytes
    return header, arrays, vectors
