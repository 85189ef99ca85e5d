"""Shapes: N examples; C, H, W channels, rows, columns; E logits; T tiles; K numbers of a slot."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from partrain.config.schema.layers import Conv, Dense, Dropout, Flatten, MaxPool, Relu
from partrain.kernels import loops
from partrain.network.execution import Factors, TrainingExamples
from partrain.network.fast_execution import FastExecution
from partrain.network.loops_execution import LoopsExecution
from partrain.network.network import Network
from partrain.network.normalisation import Normalisation
from partrain.parallel.array_plan import exchange_specs
from partrain.parallel.update.reduction import GradientReduction
from partrain.parallel.workers.tiles import Tiling
from tests.kernels import oracles
from tests.loaded_kernels import load_all_kernels

BOTH = pytest.mark.parametrize("kernels", ["fast", "loops"])


@pytest.fixture(scope="session", autouse=True)
def _loaded_kernels():
    for kernels, dtype in (("fast", "float32"), ("loops", "float32"), ("loops", "float64")):
        load_all_kernels(kernels, dtype)


def build(*descriptions, shape=(2, 9, 8), num_classes=5):
    return Network(descriptions, shape, num_classes)


DROPOUT_DESCRIPTIONS = (
    Dropout(rate=0.1),
    Conv(filters=3, kernel=3, padding=1),
    Dropout(rate=0.1),
    Relu(),
    MaxPool(window=2),
    Dropout(rate=0.2),
    Conv(filters=4, kernel=[3, 2], padding=1),
    Relu(),
    Dropout(rate=0.1),
    Flatten(),
    Dropout(rate=0.1),
    Dense(units=7),
    Dropout(rate=0.1),
    Relu(),
    Dropout(rate=0.2),
    Dense(units=5),
)
NETWORKS = {
    "whole": build(
        Conv(filters=3, kernel=3, padding=1),
        Relu(),
        MaxPool(window=2),
        Conv(filters=4, kernel=[3, 2]),
        Relu(),
        Flatten(),
        Dense(units=7),
        Relu(),
        Dense(units=5),
    ),
    "strides and overlapping windows": build(
        Conv(filters=4, kernel=[2, 3], stride=[1, 2], padding=[3, 1]),
        MaxPool(window=[3, 2], stride=[2, 1]),
        Relu(),
        Flatten(),
        Dense(units=6),
    ),
    "dense layers alone": build(Flatten(), Dense(units=9), Relu(), Dense(units=5)),
    "one dense layer": build(Flatten(), Dense(units=5)),
    "a convolution as the last layer": build(Relu(), Conv(filters=5, kernel=[9, 8]), Flatten()),
    "layers without parameters in front": build(
        MaxPool(window=2, stride=1), Relu(), Conv(filters=3, kernel=3), Flatten(), Relu(), Dense(units=5)
    ),
    "ReLU twice, and at the end": build(
        Conv(filters=2, kernel=4), Relu(), Relu(), Conv(filters=3, kernel=2), Flatten(), Dense(units=5), Relu()
    ),
    "layers of one kind one after the other": build(
        Conv(filters=3, kernel=2), Conv(filters=2, kernel=3), Flatten(), Dense(units=6), Dense(units=5)
    ),
    "two dense layers without a ReLU": build(Flatten(), Dense(units=6), Dense(units=5)),
    "pools one after the other": build(
        Conv(filters=3, kernel=2), MaxPool(window=3, stride=1), MaxPool(window=2), Flatten(), Dense(units=5)
    ),
    "pooling before ReLU, many filters": build(
        Conv(filters=17, kernel=3, padding=2),
        MaxPool(window=3, stride=2),
        Relu(),
        Conv(filters=9, kernel=2, padding=1),
        MaxPool(window=2),
        Flatten(),
        Dense(units=33),
        Relu(),
        Dense(units=5),
    ),
    "one place is left": build(
        Conv(filters=6, kernel=3), Relu(), Conv(filters=13, kernel=[7, 6]), Relu(), Flatten(), Dense(units=5)
    ),
    "one place of the only convolution": build(Conv(filters=6, kernel=[9, 8]), Relu(), Flatten()),
    "padding wider than the kernel, strides": build(
        Conv(filters=8, kernel=2, padding=3, stride=2),
        Relu(),
        MaxPool(window=2, stride=1),
        Conv(filters=16, kernel=3),
        Relu(),
        MaxPool(window=2),
        Flatten(),
        Dense(units=5),
    ),
    "dropout everywhere": build(*DROPOUT_DESCRIPTIONS),
    "dropout before pooling, and of one channel": build(
        Conv(filters=1, kernel=2),
        Dropout(rate=0.3),
        MaxPool(window=2, stride=1),
        Dropout(rate=0.2),
        Conv(filters=9, kernel=2),
        Dropout(rate=0.3),
        Relu(),
        Flatten(),
        Dense(units=5),
    ),
    "dropout that drops nothing": build(Flatten(), Dropout(rate=0), Dense(units=6), Relu(), Dense(units=5)),
    "ReLU behind flatten": build(Conv(filters=3, kernel=3), Flatten(), Relu(), Dense(units=5)),
}
ALL_NETWORKS = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
WHOLE = NETWORKS["whole"]


class Batch:
    """A batch that is computed some tiles at a time, as workers and the coordinator do it between them."""

    def __init__(self, network, kernels, parameters, tile, num_examples):
        self.network, self.tile, self.dtype = network, tile, parameters.dtype
        self.epoch = 0  # of what is drawn in a pass of training
        self.drawn_for = np.arange(num_examples)  # the training set's examples that these are
        specs = exchange_specs(network, num_examples, Tiling(tile), str(self.dtype), num_examples)
        # What an earlier step left there must not matter.
        self.arrays = {name: np.full(spec.shape, 77, spec.dtype) for name, spec in specs.items()}
        self.logits = np.full((num_examples, network.num_outputs), np.nan, self.dtype)
        num_channels = network.input_shape[0]
        as_they_are = Normalisation((0.0,) * num_channels, (1.0,) * num_channels)
        if kernels == "fast":
            self.execution = FastExecution(network, parameters, as_they_are, tile)
        else:
            self.execution = LoopsExecution(network, parameters, as_they_are, tile, str(self.dtype))
        self.reduction = GradientReduction(network, kernels, self.arrays, Tiling(tile), str(self.dtype))

    def forward(self, x, first, last, *, trains):
        """Return the logits of the examples `first` … `last`-1, and keep them."""
        training = TrainingExamples(seed=3, epoch=self.epoch, indices_N=self.drawn_for[first:last]) if trains else None
        logits = self.execution.forward(x, np.arange(first, last), training)
        self.logits[first:last] = logits
        return logits

    def compute(self, x, labels, first, last, *, backward=True, dlogits=None):
        """Compute the examples `first` … `last`-1 of the batch, at most as many as the execution takes at once.

        The gradient at the logits is `dlogits`, or that of cross-entropy.
        """
        assert last - first <= self.execution.capacity
        losses, predictions = self.arrays["losses"][first:last], self.arrays["predictions"][first:last]
        logits = self.forward(x, first, last, trains=backward)
        own_dlogits = np.empty_like(logits)
        loops.softmax_cross_entropy(logits, labels[first:last], losses, predictions, own_dlogits)
        if dlogits is not None:
            own_dlogits = dlogits[first:last].astype(self.dtype)
        if backward:
            slots = self.arrays["tile_sums"][first // self.tile : -(-last // self.tile)]
            self.execution.backward(own_dlogits, slots, self.factors(first, last))

    def factors(self, first, last):
        """Return the rows of the examples `first` … `last`-1."""
        return {
            layer.name: Factors(
                self.arrays[f"{layer.name}.inputs"][first:last], self.arrays[f"{layer.name}.deltas"][first:last]
            )
            for layer in self.network.dense_layers
        }

    def compute_tile(self, k, x, labels, **options):
        self.compute(x, labels, k * self.tile, min((k + 1) * self.tile, len(x)), **options)

    def gradient(self, x, labels, order=None, **options):
        """Return the losses and the sum of the gradients; `order` is of single tiles."""
        if order is None:
            for first in range(0, len(x), self.execution.capacity):
                self.compute(x, labels, first, min(first + self.execution.capacity, len(x)), **options)
        else:
            for k in order:
                self.compute_tile(k, x, labels, **options)
        return self.arrays["losses"][: len(x)].copy(), self.reduction.reduce(len(x)).copy()

    def results(self):
        """Return all that a call writes, by name: logits, slots, factors, losses, predictions."""
        written = {name: a for name, a in self.arrays.items() if name not in ("parameters", "indices")}
        return {"logits": self.logits.copy()} | {name: a.copy() for name, a in written.items()}


def assert_same_bits(actual, expected):
    assert actual.keys() == expected.keys()
    for name, array in actual.items():
        assert array.tobytes() == expected[name].tobytes(), name


def drawn(network, num_examples, seed=0, dtype="float64"):
    """Draw parameters, images and labels; biases too, so that their gradients are seen to matter."""
    rng = np.random.default_rng(seed)
    parameters = network.parameters.initial_values(seed, "float64") + 0.1 * rng.standard_normal(network.parameters.size)
    x = rng.standard_normal((num_examples, *network.input_shape))
    labels = rng.integers(0, min(5, network.num_outputs), num_examples)
    return parameters.astype(dtype), x.astype(np.float32), labels


def computed(network, kernels, parameters, x, labels, tile=4, **options):
    return Batch(network, kernels, parameters, tile, len(x)).gradient(x, labels, **options)


def logits_by_the_oracles(network, descriptions, parameters, x):
    """Compute the forward pass of a network with NumPy and SciPy."""
    views = network.parameters.views(parameters)
    for layer, description in zip(network.layers, descriptions, strict=True):
        match description:
            case Conv():
                w, b = (views[p.name] for p in layer.parameters)
                x = oracles.conv2d_forward(x, w, b, description.stride, description.padding)
            case MaxPool():
                x, _ = oracles.max_pool_forward(x, description.window, description.stride or description.window)
            case Relu():
                x = np.maximum(x, 0)
            case Flatten():
                x = x.reshape(len(x), -1)
            case Dense():
                w, b = (views[p.name] for p in layer.parameters)
                x = oracles.dense_forward(x, w, b)
    return x


def test_the_forward_pass_is_that_of_numpy_and_scipy():
    descriptions = [
        Conv(filters=4, kernel=[2, 3], stride=[1, 2], padding=[3, 1]),
        Relu(),
        MaxPool(window=[3, 2], stride=[2, 1]),
        Conv(filters=3, kernel=2),
        Flatten(),
        Dense(units=6),
        Relu(),
        Dense(units=5),
    ]
    network = build(*descriptions)
    parameters, x, _ = drawn(network, 4)
    normalisation = Normalisation((0.25, -0.5), (2.0, 1.5))
    images, indices = np.concatenate([np.zeros_like(x), x]), np.array([6, 4, 5, 7])
    normalised = (x[[2, 0, 1, 3]] - np.reshape([0.25, -0.5], (2, 1, 1))) / np.reshape([2, 1.5], (2, 1, 1))
    expected = logits_by_the_oracles(network, descriptions, parameters, normalised)
    execution = LoopsExecution(network, parameters, normalisation, 4, "float64")
    np.testing.assert_allclose(execution.forward(images, indices), expected, rtol=1e-11, atol=1e-12)
    fast = FastExecution(network, parameters.astype(np.float32), normalisation, 4)
    np.testing.assert_allclose(fast.forward(images, indices), expected, rtol=1e-4, atol=1e-5)


@ALL_NETWORKS
@pytest.mark.parametrize(("num_examples", "tile"), [(7, 3), (4, 4), (1, 5)])
def test_sums_and_factors_of_all_tiles_make_the_gradient_of_the_summed_loss(network, num_examples, tile):
    parameters, x, labels = drawn(network, num_examples)

    def loss(parameters):
        return float(computed(network, "loops", parameters, x, labels, tile)[0].sum())

    _, gradient = computed(network, "loops", parameters, x, labels, tile)
    for seed in range(3):
        oracles.check_gradient(loss, parameters, gradient, seed=seed)


@ALL_NETWORKS
def test_every_parameter_has_its_own_gradient(network):
    """A direction at random weighs the large parameters most: here each one has a check of its own."""
    parameters, x, labels = drawn(network, 5)
    _, gradient = computed(network, "loops", parameters, x, labels)
    for name, part in network.parameters.views(gradient).items():

        def loss(values, name=name):
            changed = parameters.copy()
            network.parameters.views(changed)[name][...] = values
            return float(computed(network, "loops", changed, x, labels)[0].sum())

        oracles.check_gradient(loss, network.parameters.views(parameters)[name], part)


@ALL_NETWORKS
def test_fast_gradients_are_those_of_the_loops(network):
    parameters, x, labels = drawn(network, 9, dtype="float32")
    losses, gradient = computed(network, "fast", parameters, x, labels)
    exact_losses, exact = computed(network, "loops", parameters.astype("float64"), x, labels)
    np.testing.assert_allclose(losses, exact_losses, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient, exact, rtol=0, atol=1e-5 * np.abs(exact).max())


@BOTH
@ALL_NETWORKS
def test_a_loss_has_the_same_bits_alone_as_in_any_tile(kernels, network):
    parameters, x, labels = drawn(network, 11, dtype="float32")
    losses, _ = computed(network, kernels, parameters, x, labels, tile=4)
    for tile in (1, 3, 11):
        assert np.array_equal(computed(network, kernels, parameters, x, labels, tile=tile)[0], losses)


@BOTH
@ALL_NETWORKS
def test_factors_have_the_same_bits_alone_as_in_any_tile(kernels, network):
    parameters, x, labels = drawn(network, 7, dtype="float32")
    together = Batch(network, kernels, parameters, 7, 7)
    together.gradient(x, labels)
    one_by_one = Batch(network, kernels, parameters, 1, 7)
    one_by_one.gradient(x, labels)
    for layer in network.dense_layers:
        for kind in ("inputs", "deltas"):
            name = f"{layer.name}.{kind}"
            assert np.array_equal(together.arrays[name], one_by_one.arrays[name])


@BOTH
@ALL_NETWORKS
def test_a_tile_is_a_function_of_its_examples_alone(kernels, network):
    """Neither the order of the tiles, nor who computes them, nor computing one twice, changes a bit."""
    parameters, x, labels = drawn(network, 11, dtype="float32")
    batch = Batch(network, kernels, parameters, 3, 11)
    _, gradient = batch.gradient(x, labels)
    sums = batch.arrays["tile_sums"].copy()

    other = Batch(network, kernels, parameters, 3, 11)
    _, again = other.gradient(x, labels, order=[3, 1, 1, 0, 2, 3])
    assert_same_bits(other.results(), batch.results())
    assert np.array_equal(again, gradient)

    workers = [Batch(network, kernels, parameters, 3, 11) for _ in range(2)]
    for k in range(4):
        workers[k % 2].compute_tile(k, x, labels)
        assert np.array_equal(workers[k % 2].arrays["tile_sums"][k], sums[k])


@BOTH
def test_the_gradient_of_the_first_tile_does_not_depend_on_the_rest_of_the_batch(kernels):
    parameters, x, labels = drawn(WHOLE, 8, dtype="float32")
    _, alone = computed(WHOLE, kernels, parameters, x[:4], labels[:4])
    batch = Batch(WHOLE, kernels, parameters, 4, 8)
    batch.gradient(x, labels)
    assert np.array_equal(batch.reduction.reduce(4), alone)


@BOTH
def test_changed_parameters_are_seen_at_the_next_call(kernels):
    parameters, x, labels = drawn(WHOLE, 4, dtype="float32")
    batch = Batch(WHOLE, kernels, parameters, 4, 4)
    first, _ = batch.gradient(x, labels)
    parameters *= 1.5
    changed, gradient = batch.gradient(x, labels)
    assert not np.array_equal(changed, first)
    expected_losses, expected = computed(WHOLE, kernels, parameters.copy(), x, labels)
    assert np.array_equal(changed, expected_losses)
    assert np.array_equal(gradient, expected)


@BOTH
def test_parameters_are_not_written(kernels):
    parameters, x, labels = drawn(WHOLE, 4, dtype="float32")
    before = parameters.copy()
    computed(WHOLE, kernels, parameters, x, labels)
    assert np.array_equal(parameters, before)


@BOTH
def test_an_evaluation_between_two_tiles_changes_no_gradient(kernels):
    parameters, x, labels = drawn(WHOLE, 8, dtype="float32")
    _, expected = computed(WHOLE, kernels, parameters, x, labels)
    batch = Batch(WHOLE, kernels, parameters, 4, 8)
    batch.compute_tile(0, x, labels)
    batch.compute_tile(1, 2 * x, labels, backward=False)
    batch.compute_tile(1, x, labels)
    assert np.array_equal(batch.reduction.reduce(8), expected)


@BOTH
@ALL_NETWORKS
def test_a_nan_in_any_parameter_or_pixel_reaches_a_loss(kernels, network):
    parameters, x, labels = drawn(network, 4, dtype="float32")
    assert np.isfinite(computed(network, kernels, parameters, x, labels)[0]).all()
    names = list(network.parameters.views(parameters))
    for name in names:
        broken = parameters.copy()
        network.parameters.views(broken)[name].flat[-1] = np.nan
        assert not np.isfinite(computed(network, kernels, broken, x, labels)[0]).any(), name
    x[2, 0, 3, 3] = np.nan
    losses, gradient = computed(network, kernels, parameters, x, labels)
    assert np.isfinite(losses).tolist() == [True, True, False, True]
    assert loops.first_not_finite(gradient) >= 0


@BOTH
def test_adding_up_tiles_is_the_only_difference_that_the_tile_makes(kernels):
    parameters, x, labels = drawn(WHOLE, 12, dtype="float32")
    _, small = computed(WHOLE, kernels, parameters, x, labels, tile=1)
    _, large = computed(WHOLE, kernels, parameters, x, labels, tile=12)
    np.testing.assert_allclose(small, large, rtol=0, atol=1e-5 * np.abs(large).max())
    # Dense layers reduce the batch's factors, in which the tile does not show.
    dense = slice(WHOLE.tile_sums.size, None)
    assert np.array_equal(small[dense], large[dense])


@functools.cache
def random_network(seed):
    """Draw layers in any order that is legal, and the size of the images."""
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


NUM_RANDOM_NETWORKS = 120
RANDOM_NETWORKS = pytest.mark.parametrize(
    "seeds", [range(first, first + 15) for first in range(0, NUM_RANDOM_NETWORKS, 15)], ids=str
)


def test_random_networks_are_of_every_kind():
    seen = set()
    for seed in range(NUM_RANDOM_NETWORKS):
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


@RANDOM_NETWORKS
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


@RANDOM_NETWORKS
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


def test_fast_execution_takes_several_tiles_at_once_and_never_a_part_of_one():
    for tile in (1, 2, 3, 5, 8, 20):
        parameters, _, _ = drawn(WHOLE, 1, dtype="float32")
        capacity = Batch(WHOLE, "fast", parameters, tile, 1).execution.capacity
        assert capacity % tile == 0
        assert capacity >= 8


# Each array ends where a page begins that nobody may read; only those that say so have numbers for vectors behind them.
GUARD_PAGES = """
import ctypes, math, mmap
import numpy as np
from partrain.network.normalisation import Normalisation
from partrain.kernels.simd.vectors import LANES
from partrain.network import fast_execution, fast_stages
from partrain.network.execution import Factors
from tests.loaded_kernels import load_all_kernels
from tests.network.test_execution import NETWORKS, NUM_RANDOM_NETWORKS, random_network

libc = ctypes.CDLL(None, use_errno=True)
PAGE = mmap.PAGESIZE

def guarded(shape, dtype=np.float32, slack=0):
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    dtype = np.dtype(dtype)
    num_bytes = (math.prod(shape) + slack) * dtype.itemsize
    pages = -(-num_bytes // PAGE) + 2
    memory = np.frombuffer(mmap.mmap(-1, pages * PAGE), np.uint8)
    for page in (0, pages - 1):
        address = ctypes.c_void_p(memory.ctypes.data + page * PAGE)
        assert libc.mprotect(address, ctypes.c_size_t(PAGE), 0) == 0
    first = (pages - 1) * PAGE - num_bytes
    return memory[first : first + math.prod(shape) * dtype.itemsize].view(dtype).reshape(shape)

class Guarded:
    zeros = empty = staticmethod(guarded)

    def __getattr__(self, name):
        return getattr(np, name)

fast_execution.np = Guarded()
fast_stages.np = Guarded()
fast_stages.zeros_with_slack = lambda shape, dtype=np.float32: guarded(shape, dtype, LANES)
fast_execution.zeros_with_slack = fast_stages.zeros_with_slack
load_all_kernels("fast", "float32")
networks = NETWORKS | {f"network {seed}": random_network(seed) for seed in range(0, NUM_RANDOM_NETWORKS, 2)}
rng = np.random.default_rng(0)

def drawn(shape):
    array = guarded(shape)
    array[...] = rng.standard_normal(array.shape)
    return array

for name, network in networks.items():
    print(name, flush=True)
    as_they_are = Normalisation((0.0,) * network.input_shape[0], (1.0,) * network.input_shape[0])
    execution = fast_execution.FastExecution(network, drawn(network.parameters.size), as_they_are, 4)
    images = drawn((9, *network.input_shape))
    for N in (execution.capacity, 1):
        indices = guarded(N, np.int64)
        indices[:] = 9 - np.arange(1, N + 1)
        execution.forward(images, indices)
        factors = {
            layer.name: Factors(guarded((N, *layer.input_shape)), guarded((N, *layer.output_shape)))
            for layer in network.dense_layers
        }
        slots = guarded((-(-N // 4), network.tile_sums.size))
        execution.backward(drawn((N, network.num_outputs)), slots, factors)
print("end")
"""


def test_nothing_is_read_outside_the_arrays():
    ended = subprocess.run(
        [sys.executable, "-c", GUARD_PAGES],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    last_lines = ended.stdout.splitlines()[-1:]
    assert (ended.returncode, last_lines, ended.stderr) == (0, ["end"], "")


# ---- dropout

WITH_DROPOUT = NETWORKS["dropout everywhere"]


@BOTH
def test_dropout_is_another_one_in_each_epoch_for_each_example_and_each_layer(kernels):
    network = build(Flatten(), Dropout(rate=0.5), Dropout(rate=0.5), Dense(units=5))
    parameters, _, labels = drawn(network, 2, dtype="float32")
    x = np.ones((2, *network.input_shape), np.float32)
    batch = Batch(network, kernels, parameters, 2, 2)
    kept = []
    for batch.epoch in (0, 1, 0):
        batch.gradient(x, labels)
        kept.append(batch.arrays["dense1.inputs"].copy())
    assert set(np.unique(kept[0])) == {0, 4}
    assert abs((kept[0] == 0).mean() - 0.75) < 0.15  # were the layers' the same, it would be a half
    assert not np.array_equal(kept[0][0], kept[0][1])
    assert not np.array_equal(kept[1], kept[0])
    assert np.array_equal(kept[2], kept[0])


def test_fast_execution_and_loops_drop_the_same_numbers():
    parameters, x, labels = drawn(WITH_DROPOUT, 6, dtype="float32")
    dropped = []
    for kernels in ("fast", "loops"):
        batch = Batch(WITH_DROPOUT, kernels, parameters, 3, 6)
        batch.gradient(np.abs(x) + 1, labels)
        dropped.append({name: a == 0 for name, a in batch.arrays.items() if name.startswith("dense")})
    for name, fast in dropped[0].items():
        assert np.array_equal(fast, dropped[1][name]), name
    assert 0.1 < dropped[0]["dense1.inputs"].mean() < 0.9


@BOTH
def test_where_nothing_is_trained_dropout_is_nothing(kernels):
    parameters, x, labels = drawn(WITH_DROPOUT, 5, dtype="float32")
    without = [d for d in DROPOUT_DESCRIPTIONS if not isinstance(d, Dropout)]
    plain = Batch(build(*without), kernels, parameters, 5, 5)
    plain.compute(x, labels, 0, 5, backward=False)
    batch = Batch(WITH_DROPOUT, kernels, parameters, 5, 5)
    batch.gradient(x, labels)  # what a training step has drawn must not stay
    assert not np.allclose(batch.logits, plain.logits, rtol=1e-2)
    batch.compute(x, labels, 0, 5, backward=False)
    np.testing.assert_allclose(batch.logits, plain.logits, rtol=1e-4, atol=1e-5)
