"""Shapes: N examples; C, H, W channels, rows, columns; E logits; T tiles; K numbers of a slot."""

from __future__ import annotations

import numpy as np
import pytest

from partrain.network.stages import call_order
from tests.network.networks import Batch, assert_same_bits, computed, drawn
from tests.network.random_networks import (
    NUM_EXACT_NETWORKS,
    NUM_PLAIN_NETWORKS,
    NUM_RANDOM_NETWORKS,
    random_network,
)

pytestmark = pytest.mark.usefixtures("network_kernels")


RANDOM_NETWORKS = pytest.mark.parametrize(
    "seeds", [range(first, first + 15) for first in range(0, NUM_RANDOM_NETWORKS, 15)], ids=str
)
EXACT_NETWORKS = pytest.mark.parametrize(
    "seeds", [range(first, first + 15) for first in range(0, NUM_EXACT_NETWORKS, 15)], ids=str
)


def test_random_networks_are_of_every_kind():
    seen = set()
    for seed in range(NUM_PLAIN_NETWORKS):
        names = [layer.name.rstrip("0123456789") for layer in random_network(seed).layers]
        seen |= {"first " + names[0], "last " + names[-1]}
        seen |= {" ".join(names[k : k + 2]) for k in range(len(names) - 1)}
        seen |= {" ".join(names[k : k + 3]) for k in range(len(names) - 2)}
        seen |= {"no dense"} if "dense" not in names else {"no conv"} if "conv" not in names else set()
    assert seen >= {"first conv", "first relu", "first pool", "first flatten", "no dense", "no conv"}
    assert seen >= {"last flatten", "last relu", "last dense", "dense dense", "dense relu", "flatten relu"}
    assert seen >= {"conv flatten", "conv relu pool", "conv pool relu", "conv relu conv", "conv conv", "pool pool"}
    assert seen >= {"relu relu", "conv pool flatten", "relu pool", "pool conv", "conv relu flatten", "relu conv"}


def drawn_in_whole_numbers(network, num_examples, seed):
    """Draw parameters, images and gradients at the logits that make every sum exact in float32: small integers."""
    rng = np.random.default_rng(seed)
    parameters = np.zeros(network.parameters.size, np.float32)
    for view in network.parameters.views(parameters).values():
        num_terms = view[0].size
        view[...] = rng.choice([-1, 1], view.shape) * (rng.random(view.shape) < min(0.5, 4 / num_terms))
    x = rng.integers(-3, 4, (num_examples, *network.input_shape)).astype(np.float32)
    return parameters, x, rng.integers(-2, 3, (num_examples, network.num_outputs))


@EXACT_NETWORKS
def test_fast_execution_is_exactly_the_loops_where_all_sums_are_exact(seeds):
    """In whole numbers nothing is rounded, in whatever order a sum is taken; there are many zeros and equal maxima."""
    for seed in seeds:
        network, tile = random_network(seed), 1 + seed % 5
        num_examples = 9 + seed % 4
        parameters, x, dlogits = drawn_in_whole_numbers(network, num_examples, seed)
        labels = np.zeros(num_examples, np.int64)
        fast = Batch(network, "fast", parameters, tile, num_examples)
        _, gradient = fast.gradient(x, labels, dlogits=dlogits)
        exact = Batch(network, "loops", parameters.astype(np.float64), tile, num_examples)
        _, exact_gradient = exact.gradient(x, labels, dlogits=dlogits)
        assert max(np.abs(a).max(initial=0) for a in (exact.logits, exact_gradient)) < 2**20
        expected = exact.results()
        for name, array in fast.results().items():
            if name not in ("losses", "predictions"):
                np.testing.assert_array_equal(array, expected[name], f"network {seed}: {name}")
        np.testing.assert_array_equal(gradient, exact_gradient, f"network {seed}")


def magnitudes_of_logits(network, parameters, x):
    """Return the sums of |x||w| that the logits are made of, layer upon layer."""
    batch = Batch(network, "loops", np.abs(parameters), len(x), len(x))
    batch.compute(np.abs(x), np.zeros(len(x), np.int64), 0, len(x), backward=False)
    return batch.logits


def roots_of_numbers_of_terms(network):
    """Return sqrt(K) added over the layers, K the number of terms of a layer's sums."""
    return sum(np.sqrt(np.prod(p.shape[1:]) + 1) for p in network.parameters if p.name.endswith("weight"))


def gradient_away_from_ties(network, num_examples, tile, seed):
    """Return parameters, x, labels, and the exact logits and gradient: of a draw where rounding switches no ReLU and
    no maximum.
    """
    for attempt in range(20):
        parameters, x, labels = drawn(network, num_examples, 1000 * attempt + seed, "float32")
        batch = Batch(network, "loops", parameters.astype(np.float64), tile, num_examples)
        _, gradient = batch.gradient(x, labels)
        rng = np.random.default_rng(seed)
        for _ in range(3):
            nearby = parameters * (1 + 1e-6 * rng.standard_normal(parameters.size))
            _, other = computed(network, "loops", nearby, x, labels, tile)
            if np.abs(other - gradient).max() > 1e-5 * np.abs(gradient).max():
                break
        else:
            return parameters, x, labels, batch.logits, gradient
    raise AssertionError(f"network {seed}: there are ties everywhere")


@EXACT_NETWORKS
def test_fast_execution_agrees_with_the_loops_over_random_networks(seeds):
    for seed in seeds:
        network, tile = random_network(seed), 1 + seed % 5
        parameters, x, labels, exact_logits, exact = gradient_away_from_ties(network, 10, tile, seed)
        batch = Batch(network, "fast", parameters, tile, 10)
        _, gradient = batch.gradient(x, labels)
        bound = (
            1e-6 * roots_of_numbers_of_terms(network) * magnitudes_of_logits(network, parameters.astype(np.float64), x)
        )
        assert (np.abs(batch.logits - exact_logits) <= bound).all(), f"network {seed}"
        np.testing.assert_allclose(
            gradient, exact, rtol=0, atol=1e-5 * np.abs(exact).max() + 1e-30, err_msg=f"network {seed}"
        )


@RANDOM_NETWORKS
def test_fast_bits_depend_neither_on_the_tiles_of_a_call_nor_on_what_was_computed_before(seeds):
    for seed in seeds:
        network, tile = random_network(seed), 1 + seed % 5
        parameters, x, labels = drawn(network, 13, seed, dtype="float32")
        num_tiles = -(-13 // tile)
        whole = Batch(network, "fast", parameters, tile, 13)
        _, gradient = whole.gradient(x, labels)
        expected = whole.results()

        single = Batch(network, "fast", parameters, tile, 13)
        assert np.array_equal(single.gradient(x, labels, order=range(num_tiles))[1], gradient), f"network {seed}"
        assert_same_bits(single.results(), expected)

        rng = np.random.default_rng(seed)
        strange = 1e3 * rng.standard_normal(x.shape).astype(np.float32)
        strange[rng.random(x.shape) < 0.1] = np.nan
        whole.gradient(strange, labels)
        for first in range(0, 13, tile):
            last = min(13, first + tile * int(rng.integers(1, whole.execution.capacity // tile + 1)))
            whole.compute(x, labels, first, last)
        assert_same_bits(whole.results(), expected)
        assert np.array_equal(whole.reduction.reduce(13), gradient)


@RANDOM_NETWORKS
def test_fast_bits_depend_neither_on_the_order_of_the_calls_nor_on_shared_buffers(seeds, monkeypatch):
    for seed in seeds:
        network, tile = random_network(seed), 1 + seed % 5
        parameters, x, labels = drawn(network, 13, seed, dtype="float32")
        batch = Batch(network, "fast", parameters, tile, 13)
        batch.gradient(x, labels)
        for part_bytes in (1, 2 * 4 * max(size for size in map(np.prod, shapes_in(network)))):
            monkeypatch.setattr(call_order, "PART_BYTES", part_bytes)
            other = Batch(network, "fast", parameters, tile, 13, keeps_gradients=False)
            for _ in range(2):  # the second time, nothing is zero in the buffers
                other.gradient(x, labels)
                assert_same_bits(other.results(), batch.results())
            monkeypatch.undo()


def shapes_in(network):
    return [network.input_shape, *(layer.output_shape for layer in network.leaf_layers)]


NORMALISED_NETWORKS = range(NUM_EXACT_NETWORKS, NUM_RANDOM_NETWORKS)


def test_gradients_of_random_networks_with_normalisation_are_those_of_the_loops():
    for seed in NORMALISED_NETWORKS:
        network = random_network(seed)
        parameters, x, labels = drawn(network, 12, seed)
        _, exact = computed(network, "loops", parameters, x, labels, 4)
        _, gradient = computed(network, "fast", parameters.astype(np.float32), x, labels, 4)
        np.testing.assert_allclose(gradient, exact, rtol=0, atol=3e-4 * np.abs(exact).max(), err_msg=f"network {seed}")
