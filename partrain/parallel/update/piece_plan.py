"""How an update of the parameters is cut and shared out: by shapes alone. Nothing here needs Numba."""

from __future__ import annotations

from collections.abc import Iterator

from partrain.kernels.ipc.signal_words import NUM_COEFFICIENTS, calls_size
from partrain.network.layers import Dense
from partrain.network.network import Network
from partrain.system.shared_arrays import ArraySpec

# Parameters a piece: a few pieces for each thread, so that all end at about the same time.
PIECE = 8192
# More threads would wait for memory and for each other.
MAX_THREADS = 8
# What a thread should have to do at least, and about how much there is: nanoseconds a parameter, once a step (Adam) and
# for each example (its part of the gradient). With less, waking a thread and the way of the data to it cost more.
NANOSECONDS_A_THREAD = 100_000
NANOSECONDS_A_STEP, NANOSECONDS_AN_EXAMPLE = 0.43, 0.0135


def help_specs(network: Network, kernels: str, batch_size: int) -> dict[str, ArraySpec]:
    """Plan the arrays by which workers help with an update; none where they would not.

    They help with short updates alone: for longer ones there are threads, and no second place for everything.
    """
    if kernels != "fast" or not network.dense_layers or useful_threads(network, batch_size, MAX_THREADS) > 1:
        return {}
    num_pieces, size = len(list(cut_update(network))), network.parameters.size
    return {
        "update.calls": ArraySpec((calls_size(num_pieces),), "int64"),
        "update.coefficients": ArraySpec((NUM_COEFFICIENTS,), "float32"),
        "update.parameters": ArraySpec((size,), "float32"),
        "update.first_moments": ArraySpec((2, size), "float32"),
        "update.second_moments": ArraySpec((2, size), "float32"),
    }


def useful_threads(network: Network, batch_size: int, num_processors: int) -> int:
    """Return how many threads are worth their waking for an update."""
    nanoseconds = network.parameters.size * (NANOSECONDS_A_STEP + NANOSECONDS_AN_EXAMPLE * batch_size)
    return max(1, min(num_processors, MAX_THREADS, int(nanoseconds / NANOSECONDS_A_THREAD)))


def cut_update(network: Network) -> Iterator[tuple[Dense | None, int, int]]:
    """Yield the pieces of the second round: None and parameters of slots, or a dense layer and units of it."""
    for first, last in ranges(network.tile_sums.size, PIECE):
        yield None, first, last
    for layer in network.dense_layers:
        (D,), (E,) = layer.input_shape, layer.output_shape
        for first, last in ranges(E, max(1, PIECE // D)):
            yield layer, first, last


def ranges(size: int, step: int) -> Iterator[tuple[int, int]]:
    """Cut `size` into runs of `step`; yield the first of each, and the one behind its last."""
    for first in range(0, size, step):
        yield first, min(first + step, size)
