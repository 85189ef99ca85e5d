"""What ranks exchange in a step, and in an evaluation: who computes what, and where it lies in the message.

Each rank computes a run of tiles, which follows from shapes and the number of ranks alone, and gets what the others
computed at the same places of its own arrays. After that all ranks hold what one process would hold that computed
everything. They make the same update of it, in the same order: so no gradient, and no parameter, ever travels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.network.network import Network
from partrain.parallel.array_plan import exchange_specs
from partrain.parallel.workers.commands import Operation
from partrain.parallel.workers.tiles import Tiling
from partrain.system.shared_arrays import ArraySpec

# Before each rank's piece: the number of the exchange, a signal that the rank received (0: none), and what must be
# the same on all ranks.
HEADER_WORDS = 3
HEADER_BYTES = HEADER_WORDS * 8
SEQUENCE, SIGNAL, CHECK = range(HEADER_WORDS)

EVALUATED = ("losses", "predictions", "confidences")


def exchanged_arrays(network: Network, operation: Operation) -> list[str]:
    """Return the names of the arrays that an operation's results lie in; those of 8 bytes a number come first."""
    norms = ["squared_norms"] if operation.has_norms else []
    if not operation.is_step:
        return [*norms, *EVALUATED]
    factors = [f"{layer.name}.{kind}" for layer in network.dense_layers for kind in ("inputs", "deltas")]
    return [*norms, "losses", "predictions", *(["tile_sums"] if network.tile_sums.size else []), *factors]


def array_rows(name: str, first: int, last: int, tiling: Tiling) -> slice:
    """Return the rows of an array that belong to the examples `first` to `last` - 1."""
    return tiling.tile_range(first, last) if name == "tile_sums" else slice(first, last)


def step_bytes(network: Network, batch_size: int, tiling: Tiling, dtype: str, num_ranks: int) -> list[int]:
    """Return how many bytes each rank contributes to the exchange of a step."""
    specs = exchange_specs(network, batch_size, tiling, dtype, batch_size)
    names = exchanged_arrays(network, Operation.GRADIENTS)

    def contribution(rank: int) -> int:
        first, last = tiling.rank_share(0, batch_size, rank, num_ranks)
        return _whole_words(
            HEADER_BYTES + sum(_piece(name, specs[name], first, last, tiling).num_bytes for name in names)
        )

    return [contribution(rank) for rank in range(num_ranks)]


def _piece(name: str, spec: ArraySpec, first: int, last: int, tiling: Tiling) -> ArraySpec:
    rows = array_rows(name, first, last, tiling) if first < last else slice(0, 0)
    return ArraySpec((rows.stop - rows.start, *spec.shape[1:]), spec.dtype)


def _whole_words(num_bytes: int) -> int:
    """Return a number of bytes after which the next header lies where whole words do."""
    return -(-num_bytes // 8) * 8


@dataclass(frozen=True, eq=False)
class Message:
    """The one message of an exchange, laid out for all ranks.

    Attributes
    ----------
    buffer : all pieces, rank by rank.
    counts, places : each rank's bytes, and where they begin.
    headers_RW : each rank's header, in the buffer.
    outgoing : pairs of a piece in the buffer, and of the array that it is copied from.
    incoming : pairs of an array, and of the piece in the buffer that it is copied from.
    """

    buffer: NDArray[np.uint8]
    counts: Sequence[int]
    places: Sequence[int]
    headers_RW: Sequence[NDArray[np.int64]]
    outgoing: Sequence[tuple[NDArray[Any], NDArray[Any]]]
    incoming: Sequence[tuple[NDArray[Any], NDArray[Any]]]


def lay_out(
    arrays: Mapping[str, NDArray[Any]],
    names: Sequence[str],
    shares: Sequence[tuple[int, int]],
    tiling: Tiling,
    rank: int,
) -> Message:
    """Lay out the message by which the ranks exchange their shares of `names`.

    Parameters
    ----------
    arrays : the shared arrays; the message refers to them.
    names : of those that are exchanged.
    shares : the examples (first, last) of each rank.
    tiling : cuts the batch.
    rank : whose message it is.
    """
    regions = [
        [arrays[name][array_rows(name, first, last, tiling)] for name in names] if first < last else []
        for first, last in shares
    ]
    counts = [_whole_words(HEADER_BYTES + sum(region.nbytes for region in of_rank)) for of_rank in regions]
    places = [sum(counts[:k]) for k in range(len(counts))]
    buffer = np.zeros(sum(counts), np.uint8)
    headers, outgoing, incoming = [], [], []
    for number, (place, of_rank) in enumerate(zip(places, regions, strict=True)):
        headers.append(buffer[place : place + HEADER_BYTES].view(np.int64))
        offset = place + HEADER_BYTES
        for region in of_rank:
            piece = np.frombuffer(buffer, region.dtype, math.prod(region.shape), offset).reshape(region.shape)
            offset += region.nbytes
            if number == rank:
                outgoing.append((piece, region))
            else:
                incoming.append((region, piece))
    return Message(buffer, counts, places, headers, outgoing, incoming)
