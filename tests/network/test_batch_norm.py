"""Batch normalisation, whose statistics are those of a tile. Shapes: N examples; C, H, W channels, rows, columns."""

from __future__ import annotations

import numpy as np
import pytest

from partrain.config.schema.layer_entries import Residual
from partrain.config.schema.layers import Conv, Dense, Flatten, Relu
from partrain.config.schema.normalisation_layers import BatchNorm
from partrain.network.stages import call_order, stage
from tests.kernels import oracles
from tests.network.networks import Batch, assert_same_bits, build, computed, drawn

pytestmark = pytest.mark.usefixtures("network_kernels")


def conv(filters):
    return Conv(filters=filters, kernel=3, padding=1)


NETWORKS = {
    "images and vectors": build(
        conv(6),
        BatchNorm(),
        Relu(),
        conv(18),
        BatchNorm(eps=1e-3),
        Flatten(),
        BatchNorm(),
        Dense(units=12),
        BatchNorm(),
        Relu(),
        Dense(units=5),
    ),
    "residual layers": build(
        conv(8),
        BatchNorm(),
        Relu(),
        Residual(body=[conv(8), BatchNorm(), Relu(), conv(8), BatchNorm()]),
        Relu(),
        Residual(body=[BatchNorm(), Relu(), conv(9)], shortcut=[Conv(filters=9, kernel=1), BatchNorm()]),
        Flatten(),
        Dense(units=5),
        shape=(2, 17, 13),
    ),
}
ALL = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
BOTH = pytest.mark.parametrize("kernels", ["fast", "loops"])
NUM, TILE = 8, 3


def drawn_with_variances(network, dtype):
    parameters, x, labels = drawn(network, NUM, dtype=dtype)
    for p in network.parameters:
        if p.name.endswith("running_var"):
            network.parameters.views(parameters)[p.name][:] += 0.5
    return parameters, x, labels


def averages_of(network):
    return [p.name for p in network.parameters if p.role == "average"]


@ALL
def test_gradients_are_those_of_the_summed_loss(network):
    parameters, x, labels = drawn_with_variances(network, "float64")
    _, gradient = computed(network, "loops", parameters, x, labels, TILE)
    for name in averages_of(network):  # these columns hold statistics
        network.parameters.views(gradient)[name][:] = 0

    def loss(parameters):
        return float(computed(network, "loops", parameters, x, labels, TILE)[0].sum())

    for seed in range(3):
        oracles.check_gradient(loss, parameters, gradient, seed=seed)


@ALL
def test_fast_gradients_and_statistics_are_those_of_the_loops(network):
    parameters, x, labels = drawn_with_variances(network, "float32")
    losses, gradient = computed(network, "fast", parameters, x, labels, TILE)
    exact_losses, exact = computed(network, "loops", parameters.astype("float64"), x, labels, TILE)
    np.testing.assert_allclose(losses, exact_losses, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gradient, exact, rtol=0, atol=1e-5 * np.abs(exact).max())


@BOTH
def test_each_tile_writes_its_mean_and_unbiased_variance_in_the_place_of_gradients(kernels):
    network = build(BatchNorm(), Flatten(), Dense(units=5))
    parameters, x, labels = drawn(network, NUM, dtype="float32")
    batch = Batch(network, kernels, parameters, TILE, NUM)
    batch.gradient(x, labels)
    sums = [network.tile_sums.views(slot) for slot in batch.arrays["tile_sums"]]
    for first, views in zip(range(0, NUM, TILE), sums, strict=False):
        tile_NCHW = x[first : first + TILE].astype(np.float64)
        mean = tile_NCHW.mean(axis=(0, 2, 3))
        variance = tile_NCHW.var(axis=(0, 2, 3), ddof=1)
        np.testing.assert_allclose(views["batch_norm1.running_mean"], mean, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(views["batch_norm1.running_var"], variance, rtol=1e-5)


@BOTH
def test_an_evaluation_normalises_by_the_running_statistics(kernels):
    network = build(BatchNorm(eps=1e-3), Relu(), Flatten(), shape=(2, 2, 3))
    parameters, x, _ = drawn_with_variances(network, "float32")
    views = network.parameters.views(parameters)
    weight, bias, mean, variance = (
        views[f"batch_norm1.{name}"].astype(np.float64)[:, None, None]
        for name in ("weight", "bias", "running_mean", "running_var")
    )
    expected = np.maximum((x - mean) / np.sqrt(variance + 1e-3) * weight + bias, 0).reshape(NUM, -1)
    batch = Batch(network, kernels, parameters, NUM, NUM)
    np.testing.assert_allclose(batch.forward(x, 0, NUM, trains=False), expected, rtol=1e-5, atol=1e-5)
    assert not np.allclose(batch.forward(x, 0, NUM, trains=True), expected, atol=1e-2)


@BOTH
@ALL
def test_a_tile_is_a_function_of_its_examples_alone(kernels, network):
    parameters, x, labels = drawn_with_variances(network, "float32")
    together = Batch(network, kernels, parameters, TILE, NUM)
    if kernels == "fast":
        together.compute(x, labels, 0, NUM)
    else:
        together.gradient(x, labels, order=range(3))
    alone = Batch(network, kernels, parameters, TILE, NUM)
    alone.compute_tile(1, 3 * x, labels)
    for k in (2, 0, 1):
        alone.compute_tile(k, -x, labels, backward=False)
        alone.compute_tile(k, x, labels)
    assert_same_bits(alone.results(), together.results())


def test_bits_do_not_depend_on_the_pieces_of_images(monkeypatch):
    network = build(
        *(
            conv(20),
            BatchNorm(),
            Relu(),
            Conv(filters=17, kernel=1),
            BatchNorm(),
            Conv(filters=5, kernel=1, bias=False),
        ),
        *(BatchNorm(), Relu(), Conv(filters=8, kernel=1), Relu(), Flatten(), Dense(units=5)),
        shape=(2, 16, 32),
    )
    parameters, x, labels = drawn_with_variances(network, "float32")

    def results(**options):
        batch = Batch(network, "fast", parameters, TILE, NUM, **options)
        batch.gradient(x, labels)
        return batch.results()

    monkeypatch.setattr(call_order, "PART_BYTES", 1)
    in_pieces = [results(), results(keeps_gradients=False)]
    monkeypatch.undo()
    monkeypatch.setattr(stage, "LEAST_PLACES", 16 * 32)
    for piecewise in in_pieces:
        assert_same_bits(piecewise, results())
