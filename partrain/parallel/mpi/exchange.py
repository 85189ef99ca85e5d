"""The message that ranks exchange in a step or an evaluation: its content and its layout.

Each rank computes a range of tiles, which follows from the shapes and the number of ranks alone, and receives the
results of the others at the same places of its own arrays. After that, every rank holds what a single process would
have computed. All ranks then make the same update in the same order, so no summed gradient and no parameter is sent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.network.network import Network
from partrain.parallel.mpi.copies import Copies
from partrain.parallel.workers.commands import Operation
from partrain.parallel.workers.tiles import Tiling

# The header of each rank's piece: the number of the exchange, the signal that the rank has received (0: none), and a
# number that must be the same on all ranks.
HEADER_WORDS = 3
HEADER_BYTES = HEADER_WORDS * 8
SEQUENCE, SIGNAL, CHECK = range(HEADER_WORDS)

# Messages that are kept: those of steps and evaluations of the same size.
MOST_MESSAGES = 8

EVALUATED = ("losses", "predictions", "confidences")

# A buffer of bytes, and for each rank how many of them are its piece, and where they begin.
Pieces = tuple[NDArray[np.uint8], Sequence[int], Sequence[int]]


def results_of(operation: Operation) -> list[str]:
    """Return the names of the arrays that hold the results of an operation's examples."""
    norms = ["squared_norms"] if operation.has_norms else []
    return [*norms, *(("losses", "predictions") if operation.is_step else EVALUATED)]


def exchanged_arrays(network: Network, operation: Operation) -> list[str]:
    """Return the names of the arrays that hold an operation's results; those with 8 bytes per number come first."""
    if not operation.is_step:
        return results_of(operation)
    factors = [f"{layer.name}.{kind}" for layer in network.dense_layers for kind in ("inputs", "deltas")]
    return [*results_of(operation), *(["tile_sums"] if network.tile_sums.size else []), *factors]


def array_rows(name: str, first: int, last: int, tiling: Tiling) -> slice:
    """Return the rows of an array that belong to the examples `first` to `last` - 1."""
    return tiling.tile_range(first, last) if name == "tile_sums" else slice(first, last)


def whole_words(num_bytes: int) -> int:
    """Round up a number of bytes so that the next header is aligned to words."""
    return -(-num_bytes // 8) * 8


@dataclass(frozen=True, eq=False)
class Message:
    """The message of an exchange, with its layout for all ranks.

    Attributes
    ----------
    buffer : the pieces of all ranks, in order.
    counts, offsets : the number of bytes of each rank, and where they begin.
    headers_RW : the header of each rank, as a view of the buffer.
    outgoing, incoming : copies to the buffer, and from it.
    """

    buffer: NDArray[np.uint8]
    counts: Sequence[int]
    offsets: Sequence[int]
    headers_RW: Sequence[NDArray[np.int64]]
    outgoing: Copies
    incoming: Copies


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
    arrays : the shared arrays; the message keeps views of them.
    names : the names of the arrays that are exchanged.
    shares : the positions (first, last) of each rank.
    tiling : cuts the batch.
    rank : the rank that sends the message.
    """
    regions = [
        [arrays[name][array_rows(name, first, last, tiling)] for name in names] if first < last else []
        for first, last in shares
    ]
    counts = [whole_words(HEADER_BYTES + sum(region.nbytes for region in of_rank)) for of_rank in regions]
    offsets = [sum(counts[:k]) for k in range(len(counts))]
    buffer = np.zeros(sum(counts), np.uint8)
    headers, outgoing, incoming = [], [], []
    for number, (start, of_rank) in enumerate(zip(offsets, regions, strict=True)):
        headers.append(buffer[start : start + HEADER_BYTES].view(np.int64))
        offset = start + HEADER_BYTES
        for region in of_rank:
            piece = np.frombuffer(buffer, region.dtype, math.prod(region.shape), offset).reshape(region.shape)
            offset += region.nbytes
            if number == rank:
                outgoing.append((piece, region))
            else:
                incoming.append((region, piece))
    return Message(buffer, counts, offsets, headers, Copies(outgoing), Copies(incoming))
