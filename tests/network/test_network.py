from __future__ import annotations

import pickle

import pytest

from partrain.config.schema.layers import Conv, Dense, Dropout, Flatten, MaxPool, Relu
from partrain.errors import ConfigError
from partrain.network import layer_building, layers
from partrain.network.network import Network, examples_per_call
from partrain.network.parameters import Parameter
from tests.network.networks import ARTICLE

NUM_PARAMETERS = (8 * 25 + 8) + (8 * 8 * 25 + 8) + (128 * 800 + 128) + (10 * 128 + 10)


@pytest.fixture
def article():
    return Network(ARTICLE, (1, 28, 28), num_classes=10)


def test_parameters_of_all_layers_come_in_network_order(article):
    assert article.parameters.size == NUM_PARAMETERS
    assert [p.name for p in article.parameters] == [
        f"{layer}.{kind}" for layer in ("conv1", "conv2", "dense1", "dense2") for kind in ("weight", "bias")
    ]


def test_sums_of_tiles_are_the_convolutions_and_the_beginning_of_the_vector(article):
    assert article.tile_sums.size == (8 * 25 + 8) + (8 * 8 * 25 + 8)
    names = [p.name for p in article.parameters]
    assert [p.name for p in article.tile_sums] == names[:4]
    assert [layer.name for layer in article.dense_layers] == ["dense1", "dense2"]


def test_a_network_without_convolutions_sends_no_sums():
    network = Network([Flatten(), Dense(units=3)], (1, 4, 4), num_classes=3)
    assert (network.tile_sums.size, network.parameters.size) == (0, 51)


def test_more_outputs_than_classes_are_allowed(article):
    assert article.num_outputs == 10
    assert Network(ARTICLE, (1, 28, 28), num_classes=7).num_outputs == 10


def test_activations_are_the_input_and_every_output(article):
    assert article.num_activations == 784 + 2 * 4608 + 2 * 3200 + 2 * 800 + 2 * 128 + 10


def test_too_few_outputs_are_an_error_that_names_the_layer_and_the_classes():
    with pytest.raises(ConfigError, match=r"network\.8 \(dense2\): 10 outputs .* 47 classes .* at least 47 units"):
        Network(ARTICLE, (1, 28, 28), num_classes=47)


@pytest.mark.parametrize("end", [Relu(), MaxPool(window=2), Conv(filters=10, kernel=24)])
def test_a_network_that_ends_with_an_image_is_an_error_that_says_how_to_end(end):
    with pytest.raises(ConfigError, match=r"the last layer .*`flatten` and `dense: {units: 10}`"):
        Network([Conv(filters=8, kernel=5), end], (1, 28, 28), num_classes=10)


def test_a_network_with_nothing_to_train_is_an_error():
    with pytest.raises(ConfigError, match="nothing to train"):
        Network([Relu(), Flatten()], (1, 28, 28), num_classes=10)


def test_an_error_of_a_layer_comes_first():
    with pytest.raises(ConfigError, match=r"network\.1 \(dense1\)"):
        Network([Relu(), Dense(units=2)], (1, 28, 28), num_classes=10)


def test_a_network_can_be_sent_to_another_process(article):
    copy = pickle.loads(pickle.dumps(article))
    assert copy.layers == article.layers
    assert list(copy.parameters) == list(article.parameters)


def test_the_table_tells_shapes_parameters_and_multiply_adds(article):
    lines = article.table().splitlines()
    assert len(lines) == 1 + 9 + 1
    assert lines[0].split() == ["layer", "output", "parameters", "multiply-adds"]
    assert lines[1].split() == ["conv1", "8", "x", "24", "x", "24", "208", "115,200"]
    assert lines[5].split() == ["pool1", "8", "x", "10", "x", "10", "0", "0"]
    assert lines[7].split() == ["dense1", "128", "102,528", "102,400"]
    assert lines[-1].split() == ["total", f"{NUM_PARAMETERS:,}", f"{115_200 + 640_000 + 102_400 + 1_280:,}"]
    assert len({len(line) for line in lines}) == 1


@pytest.mark.parametrize("after", [(), (Relu(),)])
def test_dropout_of_the_networks_outputs_is_refused(after):
    chain = [Flatten(), Dropout(rate=0.2), Dense(units=3), Dropout(rate=0.5), *after]
    with pytest.raises(
        ConfigError, match=r"^network\.3 \(dropout2\): dropout after the last dense layer .* before the last"
    ):
        Network(chain, (1, 4, 4), num_classes=3)
    assert Network(chain[:3], (1, 4, 4), num_classes=3).layers[1].name == "dropout1"


def test_parameters_that_are_summed_by_tile_come_before_those_of_dense_layers(monkeypatch):
    dense = layers.Dense("dense1", (4,), (3,), (Parameter("dense1.weight", (3, 4), 1.0),))
    scale = layers.Layer("scale1", (3,), (3,), (Parameter("scale1.weight", (3,), 1.0),))
    monkeypatch.setattr(layer_building, "build_layers", lambda descriptions, input_shape: (dense, scale))
    built = Network([], (4,), num_classes=3)
    assert [p.name for p in built.parameters] == ["scale1.weight", "dense1.weight"]
    assert [p.name for p in built.tile_sums] == ["scale1.weight"]


def test_the_table_has_dropout_without_parameters_and_multiply_adds():
    lines = Network([Flatten(), Dropout(rate=0.2), Dense(units=3)], (1, 4, 4), num_classes=3).table().splitlines()
    assert lines[2].split() == ["dropout1", "16", "0", "0"]


def test_a_network_of_many_activations_is_computed_a_tile_at_a_time():
    layers = [Conv(filters=64, kernel=1), Flatten(), Dense(units=2)]
    assert examples_per_call(3, Network(layers, (1, 20, 20), 2)) == 18
    assert examples_per_call(3, Network(layers, (1, 100, 100), 2)) == 3
