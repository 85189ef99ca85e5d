"""The standard deviation of initial weights, by the activation that follows."""

from __future__ import annotations

import math

import numpy as np
import pytest

from partrain.config.schema.activations import Gelu, LeakyRelu, Sigmoid, Silu, Tanh
from partrain.config.schema.layer_entries import Residual
from partrain.config.schema.layers import Conv, Dense, Flatten, MaxPool, Relu
from partrain.config.schema.normalisation_layers import BatchNorm, GroupNorm, LayerNorm
from tests.network.networks import build

# Of a convolution with 18 numbers in each sum, and 36 sums that an input is in.
HE, LECUN = math.sqrt(2 / 18), math.sqrt(1 / 18)
FOLLOWING = [
    ([Relu()], HE),
    ([GroupNorm(groups=1), Relu()], HE),
    ([BatchNorm(), MaxPool(window=2), Relu()], HE),
    ([Gelu()], HE),
    ([Silu()], HE),
    ([LeakyRelu(slope=0.5)], math.sqrt(2 / 1.25 / 18)),
    ([Tanh()], math.sqrt(25 / 9 / 27)),
    ([LayerNorm(), Tanh()], math.sqrt(25 / 9 / 27)),
    ([Sigmoid()], math.sqrt(1 / 27)),
    ([Residual(body=[GroupNorm(groups=1), Relu()])], HE),
    ([Residual(body=[Conv(filters=4, kernel=1), Relu()])], LECUN),
    ([], LECUN),
]


@pytest.mark.parametrize(("following", "deviation"), FOLLOWING)
def test_the_activation_that_follows_decides_the_initial_deviation(following, deviation):
    network = build(Conv(filters=4, kernel=3), *following, Flatten(), Dense(units=5))
    assert network.trained_layers[0].parameters[0].initial_deviation == deviation


def test_the_last_layer_of_a_branch_is_followed_by_what_follows_the_sum():
    network = build(Residual(body=[Conv(filters=2, kernel=1)]), Relu(), Flatten(), Dense(units=5))
    assert network.trained_layers[0].parameters[0].initial_deviation == math.sqrt(2 / 2)


@pytest.mark.parametrize("norm", [BatchNorm, LayerNorm, lambda **fields: GroupNorm(groups=1, **fields)])
def test_factors_start_at_1_or_at_0_if_asked_and_summands_at_0(norm):
    network = build(norm(), norm(zero_init=True), Flatten(), Dense(units=5))
    values = network.parameters.views(network.parameters.initial_values(0, "float32"))
    first, second = (layer.parameters for layer in network.trained_layers[:2])
    assert (values[first[0].name] == 1).all()
    assert not values[second[0].name].any()
    assert not values[first[1].name].any()
    for p in first[2:]:
        assert np.array_equal(values[p.name], np.full(p.shape, p.name.endswith("running_var")))
