from __future__ import annotations

import pytest

from partrain.config.schema.layers import Flatten, Relu
from tests.config.sample_configs import EVERYTHING, SMALLEST

OVERRIDES = {
    "training.optimizer.lr=0.01": lambda config: config.training.optimizer.lr == 0.01,
    "training.optimizer.lr=1e-2": lambda config: config.training.optimizer.lr == 0.01,
    "training.optimizer={lr: 0.01, beta1: 0}": lambda config: config.training.optimizer.beta1 == 0,
    "training.max_steps=200": lambda config: config.training.max_steps == 200,
    "training.max_steps=null": lambda config: config.training.max_steps is None,
    "training.max_steps=": lambda config: config.training.max_steps is None,
    " seed = 7": lambda config: config.seed == 7,
    "checkpoints.keep_best=false": lambda config: config.checkpoints.keep_best is False,
    "name=a=b": lambda config: config.name == "a=b",
    "name='2026'": lambda config: config.name == "2026",
    "network.1.dense.units=12": lambda config: config.network[1].units == 12,
    "network.1={dense: {units: 13}}": lambda config: config.network[1].units == 13,
    "network.0=relu": lambda config: config.network[0] == Relu(),
    "network=[relu, flatten]": lambda config: config.network == [Relu(), Flatten()],
}


@pytest.mark.parametrize(("override", "holds"), OVERRIDES.items())
def test_an_override_sets_only_its_key(read, override, holds):
    config = read(SMALLEST, override)
    assert holds(config)
    key = override.partition("=")[0].strip().partition(".")[0]
    rest, expected = config.to_mapping(), read(SMALLEST).to_mapping()
    del rest[key], expected[key]
    assert rest == expected


def test_the_last_override_of_a_key_wins(read):
    assert read(SMALLEST, "seed=1", "seed=2").seed == 2


def test_an_override_beats_the_file(read):
    assert read(EVERYTHING, "training.epochs=9").training.epochs == 9
    assert read(EVERYTHING, "training.epochs=9").training.batch_size == 7


def test_an_override_adds_a_key_that_the_file_lacks(read):
    assert read("data: {name: mnist}", "network=[flatten]").network == [Flatten()]
    assert read("network: [flatten]", "data.name=mnist").data.name == "mnist"


def test_an_override_of_an_empty_section_fills_it(read):
    assert read(SMALLEST + "training:\n", "training.tile=2").training.tile == 2


def test_an_override_changes_only_one_of_two_aliased_layers(read):
    text = "data: {name: mnist}\nnetwork:\n  - &c {conv: {filters: 8, kernel: 5}}\n  - relu\n  - *c\n"
    network = read(text, "network.0.conv.filters=16").network
    assert [network[0].filters, network[2].filters] == [16, 8]


BAD_OVERRIDES = {
    "training.epochs": "KEY=VALUE",
    "=5": "KEY=VALUE",
    "": "KEY=VALUE",
    "training.epochs=[": "not valid YAML",
    "training.epochs=a: b: c": "not valid YAML",
    "name=2026-13-45": "not valid YAML",
    "name=" + 3000 * "[": "not valid YAML",
    "training.epochs.x=1": "training.epochs",
    "seed.x.y=1": "seed",
    "network.9=relu": "there is no entry '9'; the list has 2 entries",
    "network.-1=relu": "there is no entry '-1'; the list has 2 entries",
    "network.x.dense=1": "there is no entry 'x'; the list has 2 entries",
    "network.0.units=1": "units",
    "trainig.epochs=1": "trainig: unknown key; did you mean training?",
    "training.epoch=1": "training.epoch: unknown key; did you mean epochs?",
    "training.epochs=none": "training.epochs: must be",
    "training..epochs=1": "unknown key",
    "data.name=": "data.name",
}


@pytest.mark.parametrize(("override", "expected"), BAD_OVERRIDES.items(), ids=[key[:30] for key in BAD_OVERRIDES])
def test_an_invalid_override_is_refused(refusal, override, expected):
    assert expected in refusal(SMALLEST + "seed: 1\ntraining: {epochs: 2}", override)
