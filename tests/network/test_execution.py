"""Shapes: N examples; C, H, W channels, rows, columns; E logits; T tiles; K numbers of a slot."""

from __future__ import annotations

import numpy as np
import pytest

from partrain.config.schema.layers import Conv, Dense, Flatten, MaxPool, Relu
from partrain.kernels import loops
from partrain.network.fast_execution import FastExecution
from partrain.network.loops_execution import LoopsExecution
from partrain.network.normalisation import Normalisation
from tests.kernels import oracles
from tests.network.networks import (
    ALL_NETWORKS,
    WHOLE,
    Batch,
    assert_same_bits,
    build,
    computed,
    drawn,
)

pytestmark = pytest.mark.usefixtures("network_kernels")

BOTH = pytest.mark.parametrize("kernels", ["fast", "loops"])


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


def test_fast_execution_takes_several_tiles_at_once_and_never_a_part_of_one():
    for tile in (1, 2, 3, 5, 8, 20):
        parameters, _, _ = drawn(WHOLE, 1, dtype="float32")
        capacity = Batch(WHOLE, "fast", parameters, tile, 1).execution.capacity
        assert capacity % tile == 0
        assert capacity >= 8


@ALL_NETWORKS
def test_batches_of_other_sizes_in_between_change_no_bits(network):
    parameters, x, labels = drawn(network, 16, dtype="float32")
    sizes = [16, 3, 16, 7, 3, 16]
    one = Batch(network, "fast", parameters, 4, 16)
    for size in sizes:
        alone = Batch(network, "fast", parameters, 4, 16)
        results = []
        for batch in (one, alone):
            batch.compute(x, labels, 0, size)
            results.append((batch.logits[:size], batch.arrays["tile_sums"][: -(-size // 4)], batch.factors(0, size)))
        assert np.array_equal(results[0][0], results[1][0])
        assert np.array_equal(results[0][1], results[1][1])
        for ours, theirs in zip(results[0][2].values(), results[1][2].values(), strict=True):
            assert np.array_equal(ours.inputs_ND, theirs.inputs_ND)
            assert np.array_equal(ours.deltas_NE, theirs.deltas_NE)
