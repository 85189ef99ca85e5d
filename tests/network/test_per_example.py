"""The norms of single examples' gradients, and clipping, against each example's gradient by the readable loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from partrain.kernels import loops
from partrain.network.clipping import clipping_scales, gradient_norms
from partrain.network.parameters import ParameterLayout
from tests.network.networks import ALL_NETWORKS, WHOLE, Batch

pytestmark = pytest.mark.usefixtures("network_kernels")

TILE, NUM = 3, 8


def examples(network, num=NUM, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((num, *network.input_shape)).astype(np.float32)
    return x, rng.integers(0, network.num_outputs, num)


def parameters_of(network, dtype):
    rng = np.random.default_rng(7)
    return (
        network.parameters.initial_values(3, "float64") + 0.05 * rng.standard_normal(network.parameters.size)
    ).astype(dtype)


def gradients_one_by_one(network, parameters, x, labels):
    """Return each example's gradient (N,K), in float64 by the loops, a batch of one for each."""
    rows = []
    for n in range(len(x)):
        batch = Batch(network, "loops", parameters.astype(np.float64), 1, 1)
        batch.drawn_for[:] = n
        rows.append(batch.gradient(x[n : n + 1], labels[n : n + 1])[1])
    return np.array(rows)


def squared_norms_by_layer(network, gradients_NK):
    layout = ParameterLayout(network.parameters)
    columns = []
    for layer in network.trained_layers:
        first = layout.start(layer.parameters[0].name)
        last = first + sum(p.size for p in layer.parameters)
        columns.append((gradients_NK[:, first:last] ** 2).sum(axis=1))
    return np.array(columns).T


def measured(network, kernels, parameters, x, labels, clip=None):
    """Measure the examples and sum the tiles, a call of the execution; return squared norms and the batch."""
    batch = Batch(network, kernels, parameters, TILE, len(x))
    logits = batch.forward(x, 0, len(x), trains=True)
    dlogits = np.empty((len(x), network.num_outputs), parameters.dtype)
    loops.softmax_cross_entropy(
        logits, labels, batch.arrays["losses"], batch.arrays["predictions"], np.empty(len(labels)), dlogits
    )
    squared = np.full((len(x), len(network.trained_layers)), np.nan)
    factors = batch.factors(0, len(x))
    batch.execution.measure(dlogits, factors, squared)
    scales = None if clip is None else clipping_scales(gradient_norms(squared), clip, str(parameters.dtype))
    batch.execution.sum_tiles(scales, batch.arrays["tile_sums"], factors)
    return squared, batch


@ALL_NETWORKS
def test_norms_by_layer_are_those_of_the_gradients_one_by_one(network):
    x, labels = examples(network)
    parameters = parameters_of(network, np.float32)
    expected = squared_norms_by_layer(network, gradients_one_by_one(network, parameters, x, labels))
    squared, _ = measured(network, "fast", parameters, x, labels)
    np.testing.assert_allclose(squared, expected, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("kernels", ["fast", "loops"])
def test_sums_after_measuring_have_the_bits_of_a_plain_backward_pass(kernels):
    dtype = np.float32
    x, labels = examples(WHOLE, TILE)
    parameters = parameters_of(WHOLE, dtype)
    plain = Batch(WHOLE, kernels, parameters, TILE, TILE)
    _, gradient = plain.gradient(x, labels)
    for clip in (None, math.inf, 1e9):
        _, batch = measured(WHOLE, kernels, parameters, x, labels, clip)
        np.testing.assert_array_equal(batch.reduction.reduce(len(x)), gradient)


@ALL_NETWORKS
def test_fast_sums_after_measuring_have_the_bits_of_a_plain_backward_pass_in_every_network(network):
    x, labels = examples(network)
    parameters = parameters_of(network, np.float32)
    _, gradient = Batch(network, "fast", parameters, TILE, NUM).gradient(x, labels)
    _, batch = measured(network, "fast", parameters, x, labels, math.inf)
    np.testing.assert_array_equal(batch.reduction.reduce(NUM), gradient)


@ALL_NETWORKS
def test_clipped_sum_is_that_of_the_gradients_one_by_one_each_scaled_to_the_norm(network):
    x, labels = examples(network)
    parameters = parameters_of(network, np.float32)
    gradients = gradients_one_by_one(network, parameters, x, labels)
    norms = np.sqrt((gradients**2).sum(axis=1))
    clip = float(np.median(norms))
    expected = (gradients * np.minimum(1, clip / norms)[:, None]).sum(axis=0)
    _, batch = measured(network, "fast", parameters, x, labels, clip)
    np.testing.assert_allclose(batch.reduction.reduce(NUM), expected, atol=2e-5 * np.abs(expected).max(), rtol=1e-3)


def test_loops_clip_as_the_gradients_one_by_one():
    x, labels = examples(WHOLE, TILE)
    parameters = parameters_of(WHOLE, np.float64)
    gradients = gradients_one_by_one(WHOLE, parameters, x, labels)
    norms = np.sqrt((gradients**2).sum(axis=1))
    clip = float(np.median(norms))
    squared, batch = measured(WHOLE, "loops", parameters, x, labels, clip)
    np.testing.assert_allclose(gradient_norms(squared), norms, rtol=1e-12)
    expected = (gradients * np.minimum(1, clip / norms)[:, None]).sum(axis=0)
    np.testing.assert_allclose(batch.reduction.reduce(TILE), expected, atol=1e-12)


def test_scales_are_exactly_one_up_to_the_norm_and_keep_what_is_not_finite():
    norms = np.array([0.0, 0.5, 1.0, 2.0, np.inf, np.nan])
    scales = clipping_scales(norms, 1.0, "float32")
    np.testing.assert_array_equal(scales, np.array([1, 1, 1, 0.5, 0, np.nan], np.float32))
    np.testing.assert_array_equal(clipping_scales(norms[:4], math.inf, "float32"), np.ones(4, np.float32))
