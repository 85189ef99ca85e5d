"""Cuts an update of the parameters into pieces, by shapes alone. Needs no Numba."""

from __future__ import annotations

from collections.abc import Iterator

from partrain.kernels.ipc.signal_words import NUM_COEFFICIENTS, help_requests_size
from partrain.network.layers import Dense
from partrain.network.network import Network
from partrain.system.shared_arrays import ArraySpec

# Parameters in a piece: each thread gets a few pieces, so that all threads end at about the same time.
PIECE = 8192
# With more threads, they wait for memory and for each other.
MAX_THREADS = 8
# The least work for a thread, and an estimate of all work: nanoseconds for each parameter, once in a step (Adam) and
# for each example (its gradient). With less work, waking the thread and moving the data to its cache take longer.
NANOSECONDS_PER_THREAD = 100_000
NANOSECONDS_PER_STEP, NANOSECONDS_PER_EXAMPLE = 0.43, 0.0135


def help_specs(network: Network, kernels: str, batch_size: int) -> dict[str, ArraySpec]:
    """Return the shared arrays that workers need to help with an update; none if they do not help.

    They help only with short updates. Longer ones use threads, which need no second buffer of the moments.
    """
    if kernels != "fast" or not network.dense_layers or useful_threads(network, batch_size, MAX_THREADS) > 1:
        return {}
    num_pieces, size = len(list(cut_update(network))), network.parameters.size
    return {
        "update.help_requests": ArraySpec((help_requests_size(num_pieces),), "int64"),
        "update.coefficients": ArraySpec((NUM_COEFFICIENTS,), "float32"),
        "update.parameters": ArraySpec((size,), "float32"),
        "update.first_moments": ArraySpec((2, size), "float32"),
        "update.second_moments": ArraySpec((2, size), "float32"),
    }


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


def ranges(size: int, step: int) -> Iterator[tuple[int, int]]:
    """Cut range(size) into runs of `step`; yield the first index of each, and the index after its last."""
    for first in range(0, size, step):
        yield first, min(first + step, size)
