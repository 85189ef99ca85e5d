"""Residual layers: names, shapes, messages."""

from __future__ import annotations

import pytest

from partrain.config.reader import parse_config
from partrain.config.yaml_loader import load_yaml
from partrain.errors import ConfigError
from partrain.network.network import Network


def network(entries, shape=(3, 12, 12)):
    config = parse_config({"data": {"name": "mnist"}, "network": entries}, source="test")
    return Network(config.network, shape, 10)


def conv(filters, kernel=3, **fields):
    return {"conv": {"filters": filters, "kernel": kernel, **fields}}


END = ["flatten", {"dense": {"units": 10}}]
NESTED = [
    conv(4, padding=1),
    {
        "residual": {
            "body": ["relu", {"residual": {"body": [conv(4, padding=1)]}}, conv(8, padding=1, stride=2)],
            "shortcut": [conv(8, 1, stride=2)],
        }
    },
    "relu",
    *END,
]


def test_layers_are_numbered_in_order_with_the_body_before_the_shortcut():
    names = [layer.name for layer in network(NESTED).leaf_layers]
    assert names == ["conv1", "relu1", "conv2", "conv3", "conv4", "relu2", "flatten1", "dense1"]
    assert [p.name for p in network(NESTED).parameters][:8:2] == [f"conv{k}.weight" for k in (1, 2, 3, 4)]


def test_the_table_indents_body_and_shortcut():
    lines = network(NESTED).table().splitlines()
    assert [line[:18].rstrip() for line in lines] == [
        "layer",
        "conv1",
        "residual1",
        "  body",
        "    relu1",
        "    residual2",
        "      body",
        "        conv2",
        "      shortcut: the input"[:18].rstrip(),
        "    conv3",
        "  shortcut",
        "    conv4",
        "relu2",
        "flatten1",
        "dense1",
        "total",
    ]
    assert "shortcut: the input" in lines[8]


HINTS = [
    ([conv(8, padding=1)], "`shortcut: [conv: {filters: 8, kernel: 1}]` fits"),
    ([conv(8, padding=1, stride=2)], "`shortcut: [conv: {filters: 8, kernel: 1, stride: 2}]` fits"),
    ([conv(3, [3, 1], stride=[1, 4])], "`shortcut: [conv: {filters: 3, kernel: [3, 1], stride: [1, 4]}]` fits"),
    (["flatten", {"dense": {"units": 7}}], "`shortcut: [flatten, dense: {units: 7}]` fits"),
]


@pytest.mark.parametrize(("body", "hint"), HINTS)
def test_a_shortcut_that_would_fit_is_named(body, hint):
    end = END[1:] if "flatten" in body else END
    with pytest.raises(ConfigError) as refusal:
        network([{"residual": {"body": body}}, *end])
    assert str(refusal.value).startswith("network.0.residual (residual1): the body gives ")
    assert str(refusal.value).endswith(hint)
    hinted = hint.removesuffix(" fits").strip("`").removeprefix("shortcut: ")

    network([{"residual": {"body": body, "shortcut": load_yaml(hinted, "the hint")}}, *end])


def test_all_residual_layers_that_do_not_fit_are_named_at_once():
    wrong = {"residual": {"body": [conv(8, padding=1)]}}
    nested = {"residual": {"body": ["relu", {"residual": {"body": [conv(4)]}}], "shortcut": [conv(4, 1)]}}
    with pytest.raises(ConfigError) as refusal:
        network([wrong, nested, *END])
    lines = str(refusal.value).splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "network.0.residual (residual1)",
        "network.1.residual.body.1.residual (residual3)",
        "network.1.residual (residual2)",
    ]


def test_an_error_inside_a_branch_is_named_by_its_path():
    with pytest.raises(ConfigError, match=r"^network\.1\.residual\.shortcut\.0 \(conv3\): the kernel 13 x 13"):
        network([conv(3), {"residual": {"body": [conv(3)], "shortcut": [conv(3, 13)]}}, *END])
