"""Cuts an update of the parameters into pieces, by shapes alone. Needs no Numba."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator

from partrain.network.layers import Dense
from partrain.network.network import Network

# Parameters in a piece: each thread gets a few pieces, so that all threads end at about the same time.
PIECE = 8192
# With more threads, they wait for memory and for each other.
MAX_THREADS = 8
# The least work for a thread, and an estimate of all work: nanoseconds for each parameter, once in a step (Adam) and
# for each example (its gradient). With less work, waking the thread and moving the data to its cache take longer.
NANOSECONDS_PER_THREAD = 100_000
NANOSECONDS_PER_STEP, NANOSECONDS_PER_EXAMPLE = 0.43, 0.0135


def useful_threads(network: Network, batch_size: int, num_processors: int) -> int:
    """Return the number of threads that make an update fastest."""
    nanoseconds = network.parameters.size * (NANOSECONDS_PER_STEP + NANOSECONDS_PER_EXAMPLE * batch_size)
    return max(1, min(num_processors, MAX_THREADS, int(nanoseconds / NANOSECONDS_PER_THREAD)))


def cut_update(network: Network) -> Iterator[tuple[Dense | None, int, int]]:
    """Yield the second round's pieces: None, first, last parameter of slots; or a dense layer, first, last unit."""
    for first, last in ranges(network.tile_sums.size, PIECE):
        yield None, first, last
    for layer in network.dense_layers:
        (D,), (E,) = layer.input_shape, layer.output_shape
        for first, last in ranges(E, max(1, PIECE // D)):
            yield layer, first, last


def share_pieces(network: Network, num_examples: int, num_members: int) -> list[tuple[int, int]]:
    """Cut the second round's pieces into one run of pieces for each member, of about the same work.

    Returns
    -------
    For each member its first piece, and the piece after its last.
    """
    per_parameter = NANOSECONDS_PER_STEP + NANOSECONDS_PER_EXAMPLE * num_examples
    costs = []
    for layer, first, last in cut_update(network):
        numbers = last - first if layer is None else (last - first) * layer.input_shape[0]
        costs.append(numbers * per_parameter)
    ends = list(itertools.accumulate(costs))
    middles = [end - cost / 2 for end, cost in zip(ends, costs, strict=True)]
    cuts = [bisect.bisect_left(middles, ends[-1] * member / num_members) for member in range(num_members)]
    return list(itertools.pairwise([*cuts, len(costs)]))


def ranges(size: int, step: int) -> Iterator[tuple[int, int]]:
    """Cut range(size) into runs of `step`; yield the first index of each, and the index after its last."""
    for first in range(0, size, step):
        yield first, min(first + step, size)
