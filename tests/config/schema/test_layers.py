from __future__ import annotations

import pytest

from partrain.config.schema.layers import Dropout, Relu
from tests.config.sample_configs import EVERYTHING, SMALLEST


@pytest.mark.parametrize(("text", "pair"), [("3", (3, 3)), ("[3, 4]", (3, 4)), ("[3, 3]", (3, 3))])
def test_a_size_is_a_number_or_rows_and_columns(read, text, pair):
    layer = read(f"data: {{name: mnist}}\nnetwork: [max_pool: {{window: {text}, stride: {text}}}]").network[0]
    assert (layer.window, layer.stride) == (pair, pair)


def test_equal_rows_and_columns_are_written_as_one_number(read):
    network = read(EVERYTHING).to_mapping()["network"]
    others = {"dilation": [1, 2], "groups": 1, "bias": False}
    assert network[0] == {"conv": {"filters": 4, "kernel": [5, 3], "stride": [2, 1], "padding": [0, 2]} | others}
    assert network[2] == {"max_pool": {"window": [2, 3], "stride": 1, "padding": [1, 0]}}
    others = {"dilation": 1, "groups": 2, "bias": True}
    assert network[3] == {"conv": {"filters": 4, "kernel": 1, "stride": 1, "padding": 0} | others}


@pytest.mark.parametrize(
    "text",
    ["0", "-1", "[3, 0]", "[-1, 3]", "[3]", "[3, 3, 3]", "[]", "1.5", "[1.5, 1]", "true", "x", "{a: 1}", "null"],
)
def test_an_invalid_size_is_refused(refusal, text):
    network = f"network: [conv: {{filters: 1, kernel: {text}}}, flatten, dense: {{units: 10}}]"
    assert "network.0.conv.kernel" in refusal("data: {name: mnist}\n" + network)


def test_padding_may_be_zero_but_not_negative(read, refusal):
    text = "data: {{name: mnist}}\nnetwork: [conv: {{filters: 1, kernel: 3, padding: {}}}]"
    assert read(text.format("0")).network[0].padding == (0, 0)
    assert read(text.format("[0, 2]")).network[0].padding == (0, 2)
    assert "network.0.conv.padding" in refusal(text.format("-1"))


@pytest.mark.parametrize("entry", ["relu", "relu:", "relu: {}"])
def test_a_layer_without_fields_may_be_written_as_its_name(read, entry):
    assert read(f"data: {{name: mnist}}\nnetwork:\n  - {entry}\n").network == [Relu()]


LAYER_ERRORS = {
    "dens: {units: 10}": "unknown layer 'dens'; did you mean dense?",
    "softmax": "unknown layer 'softmax'",
    "5": "a layer is written as",
    "null": "a layer is written as",
    "[relu]": "a layer is written as",
    "{conv: {filters: 1, kernel: 1}, relu: {}}": "a layer is written as",
    "{kind: relu}": "unknown layer 'kind'",
    "{relu: {kind: relu}}": "unknown key kind",
    "flatten: 3": "the fields of flatten are written as",
    "conv": "network.0.conv.filters: this key is needed",
    "dense: {}": "network.0.dense.units: this key is needed",
    "dense: {units: 0}": "network.0.dense.units: must be greater than 0, not 0",
}


@pytest.mark.parametrize(("entry", "expected"), LAYER_ERRORS.items())
def test_an_invalid_layer_is_reported_with_its_number(refusal, entry, expected):
    message = refusal(f"data: {{name: mnist}}\nnetwork:\n  - {entry}\n  - relu\n")
    assert "network.0" in message
    assert expected in message


def test_dropout_reads_back_equal(read):
    config = read(SMALLEST, "network=[flatten, dropout: {rate: 0.5}, dense: {units: 10}]")
    assert config.network[1] == Dropout(rate=0.5)
    assert read(config.to_yaml()) == config


RESIDUAL = "residual: {body: [relu, conv: {filters: 1, kernel: 1}], shortcut: [residual: {body: [relu]}]}"


def test_residual_layers_read_back_equal(read):
    config = read(SMALLEST, f"network=[{RESIDUAL}, flatten, dense: {{units: 10}}]")
    body, shortcut = config.network[0].body, config.network[0].shortcut
    assert (body[0], shortcut[0].body, shortcut[0].shortcut) == (Relu(), [Relu()], [])
    assert read(config.to_yaml()) == config
    changed = read(config.to_yaml(), "network.0.residual.body.1.conv.filters=3")
    assert changed.network[0].body[1].filters == 3


NESTED_ERRORS = {
    "residual": "network.0.residual.body: this key is needed",
    "residual: {body: []}": "network.0.residual.body: must have at least 1 entries",
    "residual: {body: [relu, rel]}": "network.0.residual.body.1: unknown layer 'rel'; did you mean relu?",
    "residual: {body: [relu], shortcut: [conv: {filters: 1, kernl: 2, kernel: 2}]}": "network.0.residual.shortcut.0"
    ".conv.kernl: unknown key; did you mean kernel?",
    "residual: {bdy: [relu], body: [relu]}": "network.0.residual.bdy: unknown key; did you mean body?",
    "residual: {body: 3}": "network.0.residual.body: must be a list",
    "residual: {body: [" * 17 + "relu" + "]}" * 17: "network.0: residual layers may be nested 16 deep",
}


@pytest.mark.parametrize(("entry", "expected"), NESTED_ERRORS.items())
def test_an_error_in_a_residual_layer_is_reported_with_its_path(refusal, entry, expected):
    assert expected in refusal(f"data: {{name: mnist}}\nnetwork:\n  - {entry}\n  - relu\n")


BATCH_NORM = "network=[residual: {body: [flatten, batch_norm], shortcut: [flatten]}, dense: {units: 10}]"
REFUSED_WITH_BATCH_NORM = {
    "training.per_example.clip=1": "training.per_example.clip needs gradients of single examples",
    "training.per_example.statistics=true": "training.per_example.statistics needs gradients of single examples",
    "training.tile=1": "training.tile: batch_norm needs the statistics of more than one example",
}


@pytest.mark.parametrize(("setting", "expected"), REFUSED_WITH_BATCH_NORM.items())
def test_what_needs_single_examples_is_refused_with_batch_norm(read, refusal, setting, expected):
    message = refusal(SMALLEST, BATCH_NORM, setting)
    assert expected in message
    assert "use group_norm" in message
    read(SMALLEST, BATCH_NORM.replace("batch_norm", "group_norm: {groups: 1}"), setting)
