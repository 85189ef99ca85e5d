"""Frozen layers: their names, what is trained, and the gradients of the others."""

from __future__ import annotations

import numpy as np
import pytest

from partrain.config.schema.layer_entries import Residual
from partrain.config.schema.layers import Conv, Dense, Flatten, MaxPool, Relu
from partrain.config.schema.normalisation_layers import BatchNorm, GroupNorm
from partrain.config.schema.optimizer import Optimizer
from partrain.errors import ConfigError
from partrain.network.network import Network
from partrain.network.parameter_groups import ParameterGroups
from tests.network.networks import computed, drawn

LAYERS = (
    Conv(filters=3, kernel=3, padding=1),
    Relu(),
    MaxPool(window=2),
    Conv(filters=4, kernel=2),
    Relu(),
    Flatten(),
    Dense(units=7),
    Relu(),
    Dense(units=5),
)


def network(*names):
    return Network(LAYERS, (2, 9, 8), 5, names)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["conv3"], "training.freeze: there is no layer conv3; did you mean conv"),
        (["block"], "there is no layer block; the layers with parameters are conv1, conv2, dense1, dense2"),
        (["relu1"], "training.freeze: relu1 has no parameters; remove it"),
        (["conv1", "conv2", "dense1", "dense2"], "training.freeze: no layer is left to train"),
    ],
)
def test_names_that_cannot_be_frozen_are_refused(names, message):
    with pytest.raises(ConfigError) as refusal:
        network(*names)
    assert message in str(refusal.value)


def test_all_wrong_names_are_listed_at_once():
    with pytest.raises(ConfigError) as refusal:
        network("conv3", "relu1", "conv1")
    assert len(str(refusal.value).splitlines()) == 2


@pytest.mark.parametrize("name", ["adam", "sgd", "muon"])
def test_frozen_parameters_belong_to_no_group(name):
    groups = ParameterGroups.of(network("conv1", "dense1"), Optimizer(name=name))
    for layer, is_frozen in (("conv1", True), ("conv2", False), ("dense1", True), ("dense2", False)):
        for kind in ("weight", "bias"):
            assert (groups.group_of(f"{layer}.{kind}") is None) == is_frozen
    changed = sum(last - first for first, last in groups.learned)
    assert changed == sum(p.size for layer in network("conv1", "dense1").trained_layers for p in layer.parameters)


@pytest.mark.usefixtures("network_kernels")
@pytest.mark.parametrize(("kernels", "dtype"), [("fast", "float32"), ("loops", "float64")])
@pytest.mark.parametrize("names", [("conv1",), ("conv1", "conv2"), ("conv2",), ("conv1", "dense1"), ("dense2",)])
def test_gradients_of_the_other_layers_have_the_same_bits(names, kernels, dtype):
    whole, part = network(), network(*names)
    parameters, x, labels = drawn(whole, 11, dtype=dtype)
    _, expected = computed(whole, kernels, parameters, x, labels)
    _, gradient = computed(part, kernels, parameters, x, labels)
    for first, last in ParameterGroups.of(part, Optimizer()).learned:
        assert np.any(expected[first:last])
        assert gradient[first:last].tobytes() == expected[first:last].tobytes()


def network_with_branches(*names):
    body = (Conv(filters=4, kernel=3, padding=1, bias=False), GroupNorm(groups=2), Relu(), Conv(filters=4, kernel=1))
    layers = (Conv(filters=4, kernel=3), BatchNorm(), Residual(body=list(body)), Relu(), Flatten(), Dense(units=5))
    return Network(layers, (2, 9, 8), 5, names)


@pytest.mark.usefixtures("network_kernels")
@pytest.mark.parametrize(("kernels", "dtype"), [("fast", "float32"), ("loops", "float64")])
@pytest.mark.parametrize("names", [("batch_norm1",), ("group_norm1",), ("conv2",), ("conv1", "batch_norm1", "conv2")])
def test_normalisations_and_layers_in_a_branch_can_be_frozen(names, kernels, dtype):
    whole, part = network_with_branches(), network_with_branches(*names)
    assert {layer.name for layer in part.leaf_layers if layer.is_frozen} == set(names)
    parameters, x, labels = drawn(whole, 11, dtype=dtype)
    _, expected = computed(whole, kernels, parameters, x, labels)
    _, gradient = computed(part, kernels, parameters, x, labels)
    for first, last in ParameterGroups.of(part, Optimizer()).learned:
        assert np.any(expected[first:last])
        assert gradient[first:last].tobytes() == expected[first:last].tobytes()


@pytest.mark.usefixtures("network_kernels")
@pytest.mark.parametrize(("kernels", "dtype"), [("fast", "float32"), ("loops", "float64")])
def test_no_gradients_are_computed_below_the_lowest_trained_layer(kernels, dtype):
    part = network("conv1", "conv2")
    parameters, x, labels = drawn(part, 8, dtype=dtype)
    parameters[: part.tile_sums.size] = 0.1
    _, gradient = computed(part, kernels, parameters, x, labels)
    # The tests fill the slots with 77 before; what is not computed keeps that, or is 0.
    sums = gradient[: part.tile_sums.size]
    assert np.isin(sums, (0, 77 * 2)).all()
