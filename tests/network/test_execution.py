"""Shapes: N examples; C, H, W channels, rows, columns; E logits."""

from __future__ import annotations

import numpy as np
import pytest

from partrain.config import Conv, Dense, Flatten, MaxPool, Relu
from partrain.kernels.compile_options import load
from partrain.kernels.kernel_set import kernel_set
from partrain.network.execution import Factors, GradientTarget, NetworkExecution
from partrain.network.network import Network
from partrain.parallel.exchange import exchange_specs
from partrain.parallel.reduction import GradientReduction
from tests.kernels import oracles

FAST, LOOPS = kernel_set("fast"), kernel_set("loops")
BOTH = pytest.mark.parametrize("kernels", [FAST, LOOPS], ids=["fast", "loops"])


@pytest.fixture(scope="session", autouse=True)
def _loaded_kernels():
    load(FAST, "float32")
    load(LOOPS, "float32")
    load(LOOPS, "float64")


def build(*descriptions, shape=(2, 9, 8), num_classes=5):
    return Network(descriptions, shape, num_classes)


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
}
ALL_NETWORKS = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
WHOLE = NETWORKS["whole"]


class Batch:
    """A batch that is computed tile by tile, as workers and the coordinator do it between them."""

    def __init__(self, network, kernels, parameters, tile, num_examples):
        self.network, self.kernels, self.tile, self.dtype = network, kernels, tile, parameters.dtype
        specs = exchange_specs(network, num_examples, tile, str(self.dtype), num_examples)
        # What an earlier step left there must not matter.
        self.arrays = {name: np.full(spec.shape, 77, spec.dtype) for name, spec in specs.items()}
        self.sums = [network.tile_sums.views(slot) for slot in self.arrays["tile_sums"]]
        self.execution = NetworkExecution(network, kernels, parameters, tile, str(self.dtype))
        self.reduction = GradientReduction(network, kernels, self.arrays, tile, str(self.dtype))

    def compute_tile(self, k, x, labels, *, backward=True):
        """Compute tile `k` of the batch; return its losses and predictions."""
        rows = slice(k * self.tile, min((k + 1) * self.tile, len(x)))
        losses, predictions = self.arrays["losses"][rows], self.arrays["predictions"][rows]
        # A copy, since a ReLU that comes first works in place.
        logits = self.execution.forward(x[rows].copy())
        dlogits = np.empty_like(logits)
        self.kernels.softmax_cross_entropy(logits, labels[rows], losses, predictions, dlogits)
        if backward:
            self.arrays["tile_sums"][k] = 0
            factors = {
                layer.name: Factors(
                    self.arrays[f"{layer.name}.inputs"][rows], self.arrays[f"{layer.name}.deltas"][rows]
                )
                for layer in self.network.dense_layers
            }
            self.execution.backward(dlogits, GradientTarget(self.sums[k], factors))
        return losses, predictions

    def gradient(self, x, labels, order=None):
        """Return the losses and the sum of the gradients."""
        tiles = range(-(-len(x) // self.tile))
        for k in tiles if order is None else order:
            self.compute_tile(k, x, labels)
        return self.arrays["losses"][: len(x)].copy(), self.reduction.reduce(len(x)).copy()


def drawn(network, num_examples, seed=0, dtype="float64"):
    """Draw parameters, images and labels; biases too, so that their gradients are seen to matter."""
    rng = np.random.default_rng(seed)
    parameters = network.parameters.initial_values(seed, "float64") + 0.1 * rng.standard_normal(network.parameters.size)
    x = rng.standard_normal((num_examples, *network.input_shape))
    return parameters.astype(dtype), x.astype(dtype), rng.integers(0, 5, num_examples)


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
    execution = NetworkExecution(network, LOOPS, parameters, 4, "float64")
    expected = logits_by_the_oracles(network, descriptions, parameters, x)
    np.testing.assert_allclose(execution.forward(x), expected, rtol=1e-11, atol=1e-12)


@ALL_NETWORKS
@pytest.mark.parametrize(("num_examples", "tile"), [(7, 3), (4, 4), (1, 5)])
def test_sums_and_factors_of_all_tiles_make_the_gradient_of_the_summed_loss(network, num_examples, tile):
    parameters, x, labels = drawn(network, num_examples)

    def loss(parameters):
        return float(computed(network, LOOPS, parameters, x, labels, tile)[0].sum())

    _, gradient = computed(network, LOOPS, parameters, x, labels, tile)
    for seed in range(3):
        oracles.check_gradient(loss, parameters, gradient, seed=seed)


@ALL_NETWORKS
def test_every_parameter_has_its_own_gradient(network):
    """A direction at random weighs the large parameters most: here each one has a check of its own."""
    parameters, x, labels = drawn(network, 5)
    _, gradient = computed(network, LOOPS, parameters, x, labels)
    for name, part in network.parameters.views(gradient).items():

        def loss(values, name=name):
            changed = parameters.copy()
            network.parameters.views(changed)[name][...] = values
            return float(computed(network, LOOPS, changed, x, labels)[0].sum())

        oracles.check_gradient(loss, network.parameters.views(parameters)[name], part)


@ALL_NETWORKS
def test_fast_gradients_are_those_of_the_loops(network):
    parameters, x, labels = drawn(network, 9, dtype="float32")
    losses, gradient = computed(network, FAST, parameters, x, labels)
    exact_losses, exact = computed(network, LOOPS, parameters.astype("float64"), x.astype("float64"), labels)
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
    assert np.array_equal(other.arrays["tile_sums"], sums)
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
    assert kernels.first_not_finite(gradient) >= 0


@BOTH
def test_adding_up_tiles_is_the_only_difference_that_the_tile_makes(kernels):
    parameters, x, labels = drawn(WHOLE, 12, dtype="float32")
    _, small = computed(WHOLE, kernels, parameters, x, labels, tile=1)
    _, large = computed(WHOLE, kernels, parameters, x, labels, tile=12)
    np.testing.assert_allclose(small, large, rtol=0, atol=1e-5 * np.abs(large).max())
    # Dense layers reduce the batch's factors, in which the tile does not show.
    dense = slice(WHOLE.tile_sums.size, None)
    assert np.array_equal(small[dense], large[dense])
