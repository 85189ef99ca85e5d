from __future__ import annotations

import math

import pytest

from partrain.config.schema.layers import AvgPool, Conv, Dense, Dropout, Flatten, GlobalAvgPool, MaxPool, Relu
from partrain.errors import ConfigError
from partrain.network import layers
from partrain.network.layer_building import build_layers
from tests.network.networks import ARTICLE


def only(description, shape=(1, 28, 28)):
    (layer,) = build_layers([description], shape)
    return layer


def test_layers_are_named_by_their_kind_and_counted():
    names = [layer.name for layer in build_layers(ARTICLE, (1, 28, 28))]
    assert names == ["conv1", "relu1", "conv2", "relu2", "pool1", "flatten1", "dense1", "relu3", "dense2"]


def test_each_layer_takes_what_the_one_before_gives():
    layers = build_layers(ARTICLE, (1, 28, 28))
    assert [layer.input_shape for layer in layers[1:]] == [layer.output_shape for layer in layers[:-1]]
    assert [layer.output_shape for layer in layers] == [
        (8, 24, 24),
        (8, 24, 24),
        (8, 20, 20),
        (8, 20, 20),
        (8, 10, 10),
        (800,),
        (128,),
        (128,),
        (10,),
    ]


@pytest.mark.parametrize(
    ("conv", "shape", "expected"),
    [
        (Conv(filters=4, kernel=5, padding=2), (1, 28, 28), (4, 28, 28)),
        (Conv(filters=4, kernel=3, stride=2), (3, 10, 9), (4, 4, 4)),
        (Conv(filters=4, kernel=[2, 3], stride=[1, 4], padding=[0, 5]), (2, 7, 6), (4, 6, 4)),
        (Conv(filters=1, kernel=[5, 1]), (2, 5, 3), (1, 1, 3)),
        (Conv(filters=1, kernel=2, stride=9), (2, 3, 3), (1, 1, 1)),
        (Conv(filters=1, kernel=1, padding=4), (1, 1, 1), (1, 9, 9)),
        (Conv(filters=4, kernel=3, dilation=[1, 3], groups=2), (2, 9, 9), (4, 7, 3)),
    ],
)
def test_a_convolution_gives_a_plane_of_positions_for_each_filter(conv, shape, expected):
    layer = only(conv, shape)
    assert layer.output_shape == expected
    assert (layer.stride, layer.padding) == (conv.stride, conv.padding)


@pytest.mark.parametrize(
    ("pool", "shape", "expected"),
    [
        (MaxPool(window=2), (8, 20, 20), (8, 10, 10)),
        (MaxPool(window=2), (8, 5, 7), (8, 2, 3)),
        (MaxPool(window=3, stride=2), (2, 9, 8), (2, 4, 3)),
        (MaxPool(window=[1, 4]), (2, 9, 8), (2, 9, 2)),
        (MaxPool(window=[3, 3], stride=[1, 5]), (2, 3, 3), (2, 1, 1)),
        (MaxPool(window=3, stride=2, padding=1), (2, 8, 7), (2, 4, 4)),
        (AvgPool(window=[2, 4], padding=[0, 2]), (2, 8, 7), (2, 4, 2)),
        (GlobalAvgPool(), (5, 8, 7), (5, 1, 1)),
    ],
)
def test_a_pool_leaves_out_rows_and_columns_that_fill_no_window(pool, shape, expected):
    assert only(pool, shape).output_shape == expected


def test_the_stride_of_a_pool_is_its_window_unless_it_is_given():
    assert only(MaxPool(window=[2, 3])).stride == (2, 3)
    assert only(MaxPool(window=[2, 3], stride=1)).stride == (1, 1)


def test_flatten_gives_one_row():
    assert only(Flatten(), (3, 4, 5)).output_shape == (60,)


def test_multiply_adds_are_those_of_one_example():
    layers = build_layers(ARTICLE, (1, 28, 28))
    expected = [8 * 24 * 24 * 25, 0, 8 * 20 * 20 * 8 * 25, 0, 0, 0, 800 * 128, 0, 128 * 10]
    assert [layer.multiply_adds for layer in layers] == expected


def test_multiply_adds_of_groups_are_those_with_the_channels_of_the_group():
    assert only(Conv(filters=8, kernel=3, groups=4), (4, 5, 5)).multiply_adds == 8 * 9 * 1 * 9


def test_filters_of_groups_have_their_channels_alone_and_no_bias_is_no_parameter():
    layer = only(Conv(filters=6, kernel=[3, 1], groups=2, bias=False), (4, 5, 5))
    assert [(p.name, p.shape) for p in layer.parameters] == [("conv1.weight", (6, 2, 3, 1))]
    assert layer.parameters[0].initial_deviation == math.sqrt(1 / 6)


def test_a_dense_layer_behind_a_global_pool_needs_no_flatten():
    layers = [Conv(filters=3, kernel=3), GlobalAvgPool(), Dense(units=4)]
    without = build_layers(layers, (2, 6, 5))
    assert without == build_layers([*layers[:2], Flatten(), layers[2]], (2, 6, 5))
    assert without[-1].input_shape == (3,)


def test_parameters_have_the_names_and_shapes_that_pytorch_takes():
    shapes = {p.name: p.shape for layer in build_layers(ARTICLE, (1, 28, 28)) for p in layer.parameters}
    assert shapes == {
        "conv1.weight": (8, 1, 5, 5),
        "conv1.bias": (8,),
        "conv2.weight": (8, 8, 5, 5),
        "conv2.bias": (8,),
        "dense1.weight": (128, 800),
        "dense1.bias": (128,),
        "dense2.weight": (10, 128),
        "dense2.bias": (10,),
    }


def test_weights_before_a_relu_start_with_the_deviation_of_he_and_others_with_that_of_lecun():
    deviations = {p.name: p.initial_deviation for layer in build_layers(ARTICLE, (1, 28, 28)) for p in layer.parameters}
    assert deviations == {
        "conv1.weight": math.sqrt(2 / 25),
        "conv1.bias": 0,
        "conv2.weight": math.sqrt(2 / (8 * 25)),
        "conv2.bias": 0,
        "dense1.weight": math.sqrt(2 / 800),
        "dense1.bias": 0,
        "dense2.weight": math.sqrt(1 / 128),
        "dense2.bias": 0,
    }


def test_a_pool_between_a_layer_and_its_relu_changes_nothing():
    conv, *_ = build_layers([Conv(filters=2, kernel=3), MaxPool(window=2), Relu()], (4, 9, 9))
    assert conv.parameters[0].initial_deviation == math.sqrt(2 / 36)


def test_the_relu_of_a_later_layer_does_not_count():
    first, second, _ = build_layers([Conv(filters=2, kernel=3), Conv(filters=2, kernel=3), Relu()], (1, 9, 9))
    assert first.parameters[0].initial_deviation == math.sqrt(1 / 9)
    assert second.parameters[0].initial_deviation == math.sqrt(2 / 18)


SHAPE_ERRORS = {
    "kernel larger than its input": (
        [Conv(filters=1, kernel=5), Relu(), Conv(filters=1, kernel=[3, 26])],
        ["network.2 (conv2)", "kernel 3 x 26", "24 x 24"],
    ),
    "kernel larger than its padded input": (
        [Conv(filters=1, kernel=[33, 1], padding=[2, 0])],
        ["network.0 (conv1)", "33 x 1", "28 x 28", "32 x 28"],
    ),
    "window larger than its input": (
        [MaxPool(window=2), MaxPool(window=15)],
        ["network.1 (pool2)", "window 15 x 15", "14 x 14"],
    ),
    "dilated kernel larger than its input": (
        [Conv(filters=1, kernel=5, dilation=7)],
        ["network.0 (conv1)", "dilated kernel 29 x 29", "28 x 28"],
    ),
    "groups that do not divide": (
        [Conv(filters=12, kernel=1), Conv(filters=18, kernel=1, groups=4)],
        ["network.1 (conv2)", "groups: 4", "12 input channels and 18 filters", "these do: 1, 2, 3, 6"],
    ),
    "padding of more than half a window": (
        [MaxPool(window=[3, 2], padding=[2, 1])],
        ["network.0 (pool1)", "padding 2 x 1", "half the window 3 x 2", "at most 1 x 1"],
    ),
    "padding of more than half a mean's window": ([AvgPool(window=1, padding=1)], ["network.0 (avg_pool1)", "0 x 0"]),
    "mean of a row": ([Flatten(), GlobalAvgPool()], ["network.1 (global_avg_pool1)", "784 numbers"]),
    "convolution of a row": ([Flatten(), Conv(filters=1, kernel=1)], ["network.1 (conv1)", "784 numbers"]),
    "pool of a row": ([Flatten(), MaxPool(window=1)], ["network.1 (pool1)", "784 numbers"]),
    "flatten twice": ([Flatten(), Relu(), Flatten()], ["network.2 (flatten2)", "784 numbers"]),
    "dense layer of an image": ([Relu(), Dense(units=10)], ["network.1 (dense1)", "(1, 28, 28)", "`flatten`"]),
}


@pytest.mark.parametrize(("descriptions", "told"), SHAPE_ERRORS.values(), ids=SHAPE_ERRORS)
def test_an_error_of_shapes_names_the_layer_and_the_sizes(descriptions, told):
    with pytest.raises(ConfigError) as caught:
        build_layers(descriptions, (1, 28, 28))
    for words in told:
        assert words in str(caught.value)


def facts(layer):
    return type(layer), layer.name, layer.input_shape, layer.output_shape, layer.parameters, layer.multiply_adds


def test_dropout_keeps_shapes_names_and_initial_values_of_the_layers_around_it():
    plain = [Conv(filters=3, kernel=3), Flatten(), Dense(units=4), Relu(), Dense(units=2)]
    drop = Dropout(rate=0.5)
    with_dropout = [drop, plain[0], drop, plain[1], drop, plain[2], drop, plain[3], drop, plain[4]]
    chain, expected = (build_layers(descriptions, (2, 6, 5)) for descriptions in (with_dropout, plain))
    assert [layer.name for layer in chain if isinstance(layer, layers.Dropout)] == [f"dropout{k}" for k in range(1, 6)]
    others = [layer for layer in chain if not isinstance(layer, layers.Dropout)]
    assert [facts(layer) for layer in others] == [facts(layer) for layer in expected]
    for layer in chain:
        if isinstance(layer, layers.Dropout):
            assert layer.output_shape == layer.input_shape
            assert (layer.rate, layer.parameters, layer.multiply_adds) == (0.5, (), 0)
