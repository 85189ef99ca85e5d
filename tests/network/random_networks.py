"""Networks of layers drawn at random."""

from __future__ import annotations

import functools

import numpy as np

from partrain.config.schema.layers import AvgPool, Conv, Dense, Flatten, GlobalAvgPool, MaxPool, Relu
from partrain.network.network import Network
from tests.kernels import oracles
from tests.network.residual_networks import random_residual_network


@functools.cache
def random_network(seed):
    """Draw layers in any order that is legal, and the size of the images."""
    if seed >= NUM_PLAIN_NETWORKS:
        if NUM_WITHOUT_OPTIONS <= seed < NUM_EXACT_NETWORKS:
            return _network_of_many_options(seed)
        return random_residual_network(seed, has_normalisation=seed >= NUM_EXACT_NETWORKS)
    rng = np.random.default_rng(seed)
    shape = tuple(int(size) for size in rng.integers((1, 4, 4), (4, 13, 13)))
    descriptions, size = [], shape[1:]

    def pair(low, high):
        return [int(k) for k in rng.integers(low, high, 2)]

    for _ in range(rng.integers(0, 6)):
        kind = rng.choice(["conv", "relu", "pool"], p=[0.45, 0.3, 0.25])
        if kind == "relu":
            descriptions.append(Relu())
        elif kind == "conv":
            padding = pair(0, 4) if rng.random() < 0.5 else [0, 0]
            kernel = [min(k, size[d] + 2 * padding[d]) for d, k in enumerate(pair(1, 5))]
            stride = pair(1, 4) if rng.random() < 0.4 else [1, 1]
            size = oracles.num_positions(size, kernel, stride, padding)
            filters = int(rng.integers(1, 21))
            descriptions.append(Conv(filters=filters, kernel=kernel, stride=stride, padding=padding))
        else:
            window = [min(k, size[d]) for d, k in enumerate(pair(1, 4))]
            stride = pair(1, 4)
            size = oracles.num_positions(size, window, stride)
            descriptions.append(MaxPool(window=window, stride=stride))
    descriptions.append(Flatten())
    for _ in range(rng.integers(0, 4)):
        descriptions.append(Relu() if rng.random() < 0.4 else Dense(units=int(rng.integers(2, 40))))
    if not any(isinstance(description, Conv | Dense) for description in descriptions):
        descriptions.append(Dense(units=3))
    return Network(descriptions, shape, 1)


def _network_of_many_options(seed):
    """Draw convolutions with groups, dilation and no bias, and all kinds of pooling; means of 1, 2, 4, … numbers."""
    rng = np.random.default_rng(seed)
    shape = tuple(int(size) for size in rng.integers((1, 4, 4), (10, 15, 15)))
    descriptions, (channels, *size) = [], shape

    def pair(low, high):
        return [int(k) for k in rng.integers(low, high, 2)]

    for _ in range(rng.integers(1, 5)):
        kind = rng.choice(["conv", "relu", "max_pool", "avg_pool"], p=[0.6, 0.1, 0.15, 0.15])
        if kind == "relu":
            descriptions.append(Relu())
        elif kind == "conv":
            padding, dilation = pair(0, 3), pair(1, 3) if rng.random() < 0.4 else [1, 1]
            kernel = [min(k, (size[d] + 2 * padding[d] - 1) // dilation[d] + 1) for d, k in enumerate(pair(1, 5))]
            stride = pair(1, 4) if rng.random() < 0.4 else [1, 1]
            extent = [(k - 1) * dilation[d] + 1 for d, k in enumerate(kernel)]
            size = oracles.num_positions(size, extent, stride, padding)
            groups = int(rng.choice([k for k in range(1, channels + 1) if channels % k == 0]))
            channels = groups * int(rng.integers(1, 2 + 20 // groups))
            options = {"stride": stride, "padding": padding, "dilation": dilation, "bias": bool(rng.random() < 0.5)}
            descriptions.append(Conv(filters=channels, kernel=kernel, groups=groups, **options))
        else:
            padding = pair(0, 2)
            window = [min(max(k, 2 * padding[d]), size[d] + 2 * padding[d]) for d, k in enumerate(pair(1, 4))]
            stride = pair(1, 4)
            size = oracles.num_positions(size, window, stride, padding)
            pool = MaxPool if kind == "max_pool" or 3 in window else AvgPool
            descriptions.append(pool(window=window, stride=stride, padding=padding))
    descriptions.append(GlobalAvgPool() if (size[0] * size[1]).bit_count() == 1 else Flatten())
    return Network([*descriptions, Dense(units=3)], shape, 1)


# The first seeds give a network without branches, the next ones one with branches, then come networks with options, and
# the last ones have branches, normalisation and smooth activations, which are exact in no numbers.
NUM_PLAIN_NETWORKS = 120
NUM_WITHOUT_OPTIONS = 165
NUM_EXACT_NETWORKS = 210
NUM_RANDOM_NETWORKS = 240
