from __future__ import annotations

import re

import pytest
import yaml

from partrain.config.reader import parse_config
from partrain.errors import ConfigError
from tests.config.sample_configs import SMALLEST

UNKNOWN_KEYS = {
    "netwrok: 3": "netwrok: unknown key; did you mean network?",
    "logging: {evry_steps: 3}": "logging.evry_steps: unknown key; did you mean every_steps?",
    "training: {optimizer: {learning_rate: 3}}": "training.optimizer.learning_rate: unknown key",
    "training: {lr: 3}": "training.lr: unknown key; did you mean training.optimizer.lr?",
    "batch_size: 3": "batch_size: unknown key; did you mean training.batch_size?",
    "training: {schedule: {warmup: 3}}": "training.schedule.warmup: unknown key; did you mean warmup_steps?",
    "workers: {max_restart: 3}": "workers.max_restart: unknown key; did you mean max_restarts?",
    "xyzzy: 3": "xyzzy: unknown key",
}


@pytest.mark.parametrize(("text", "expected"), UNKNOWN_KEYS.items())
def test_an_unknown_key_is_refused_with_the_nearest_one(refusal, text, expected):
    message = refusal(SMALLEST + text)
    assert expected in message
    if "did you mean" not in expected:
        assert "did you mean" not in message


def test_the_section_of_an_unknown_key_is_not_suggested(refusal):
    assert "did you mean training?" not in refusal(SMALLEST + "training: {learning: 3}")


def test_an_unknown_key_of_a_layer_is_refused_with_the_nearest_one(refusal):
    message = refusal("data: {name: mnist}\nnetwork: [conv: {filters: 1, kernel: 3, strides: 2}]")
    assert "network.0.conv.strides: unknown key; did you mean stride?" in message


BAD_VALUES = {
    "training: {per_example: {clip: 0}}": "training.per_example.clip",
    "training: {per_example: {clip: -1.0}}": "training.per_example.clip",
    "training: {per_example: {clip: .nan}}": "training.per_example.clip",
    "training: {per_example: {by_layer: true}}": "training.per_example",
    "seed: -1": "seed",
    "seed: 9223372036854775808": "seed",
    "seed: 1.0": "seed",
    "seed: 1e3": "seed",
    "seed: true": "seed",
    "seed: '1'": "seed",
    "name: 5": "name",
    "name: null": "name",
    "format: 2": "format",
    "format: '1'": "format",
    "network: []": "network",
    "network: relu": "network",
    "training: 5": "training",
    "training: {epochs: 0}": "training.epochs",
    "training: {epochs: -1}": "training.epochs",
    "training: {epochs: 1.5}": "training.epochs",
    "training: {max_steps: 0}": "training.max_steps",
    "training: {batch_size: 0}": "training.batch_size",
    "training: {batch_size: 2147483648}": "training.batch_size",
    "training: {batch_size: null}": "training.batch_size",
    "training: {tile: -4}": "training.tile",
    "training: {kernels: quick}": "training.kernels",
    "training: {dtype: float16}": "training.dtype",
    "training: {optimizer: {name: lion}}": "training.optimizer.name",
    "training: {optimizer: {lr: 0}}": "training.optimizer.lr",
    "training: {optimizer: {lr: -1e-3}}": "training.optimizer.lr",
    "training: {optimizer: {lr: .inf}}": "training.optimizer.lr",
    "training: {optimizer: {lr: .nan}}": "training.optimizer.lr",
    "training: {optimizer: {lr: 1e999}}": "training.optimizer.lr",
    "training: {optimizer: {beta1: 1}}": "training.optimizer.beta1",
    "training: {optimizer: {beta1: -0.1}}": "training.optimizer.beta1",
    "training: {optimizer: {beta2: .nan}}": "training.optimizer.beta2",
    "training: {optimizer: {eps: 0}}": "training.optimizer.eps",
    "training: {optimizer: {weight_decay: -1}}": "training.optimizer.weight_decay",
    "training: {schedule: {name: exponential}}": "training.schedule.name",
    "training: {schedule: {warmup_steps: -1}}": "training.schedule.warmup_steps",
    "training: {schedule: {decay_steps: 0}}": "training.schedule.decay_steps",
    "training: {schedule: {final_lr: -1}}": "training.schedule.final_lr",
    "training: {schedule: {every_steps: 0}}": "training.schedule.every_steps",
    "training: {schedule: {factor: 0}}": "training.schedule.factor",
    "training: {schedule: {factor: 2}}": "training.schedule.factor",
    "training: {schedule: {factor: .nan}}": "training.schedule.factor",
    "logging: {every_steps: 0}": "logging.every_steps",
    "logging: {evaluate_every_epochs: 0}": "logging.evaluate_every_epochs",
    "checkpoints: {every_steps: 0}": "checkpoints.every_steps",
    "checkpoints: {keep_last: 0}": "checkpoints.keep_last",
    "checkpoints: {keep_best: 1}": "checkpoints.keep_best",
    "workers: {max_restarts: -1}": "workers.max_restarts",
    "data: {name: cifar}": "data.name",
    "data: {name: mnist, train_examples: 0}": "data.train_examples",
    "data: {name: mnist, validation_examples: -1}": "data.validation_examples",
    "data: {name: mnist, when_unavailable: cry}": "data.when_unavailable",
    "data: {}": "data.name",
    "data: null": "data",
}


@pytest.mark.parametrize(("text", "key"), BAD_VALUES.items())
def test_a_value_of_the_wrong_type_or_out_of_bounds_is_reported_with_its_key(refusal, text, key):
    section = key.partition(".")[0]
    mapping = {name: value for name, value in yaml.safe_load(SMALLEST).items() if name != section}
    message = refusal(f"{yaml.safe_dump(mapping)}\n{text}")
    assert re.search(rf"^  {re.escape(key)}: ", message, re.MULTILINE)


@pytest.mark.parametrize(("value", "bound"), [("1e-31", "1e-30, not 1e-31"), ("1e31", "1e30, not 1e+31")])
def test_bounds_are_written_with_an_exponent(refusal, value, bound):
    message = refusal(f"{SMALLEST}\ntraining: {{optimizer: {{lr: {value}}}}}")
    assert message.endswith(f"than or equal to {bound}")


def test_all_errors_are_reported_at_once(refusal):
    text = "seed: -1\ndata: {name: mnist, pth: x}\nnetwork: [relu, dens, conv: {filters: 0}]\ntraining: {tile: no}"
    message = refusal(text)
    assert "6 errors" in message
    keys = (
        "seed:",
        "data.pth:",
        "network.1:",
        "network.2.conv.filters:",
        "network.2.conv.kernel:",
        "training.tile:",
    )
    for key in keys:
        assert message.count(f"\n  {key}") == 1


def test_messages_use_the_terms_of_yaml_not_of_python(refusal):
    text = "data: 5\ntraining:\nnetwork: [conv: {filters: 1, kernel: [1, 2, 3]}]\nworkers: [1]"
    message = refusal(text) + refusal("data: {name: mnist}\nnetwork: []")
    for word in ("instance", "dictionary", "Tuple", "validation", "Training", "string"):
        assert word not in message


def test_a_missing_key_is_named(refusal):
    message = refusal("name: x")
    assert "data: this key is needed" in message
    assert "network: this key is needed" in message


def test_of_many_errors_the_first_are_listed(refusal):
    message = refusal(SMALLEST + "\n".join(f"key{number}: 1" for number in range(2000)))
    assert "2,000 errors" in message
    assert "… and 1,980 more" in message
    assert message.count("unknown key") == 20


def test_an_error_in_an_override_is_not_blamed_on_the_file(refusal):
    message = refusal(SMALLEST + "seed: -1\ntraining: {tile: 2}", "training.epochs=two", "training.tile=3")
    lines = message.splitlines()
    assert [line.removesuffix(": 1 error in the configuration").rpartition("/")[2] for line in lines[::2]] == [
        "config.yaml",
        "--set training.epochs=two",
    ]
    assert [line.split()[0] for line in lines[1::2]] == ["seed:", "training.epochs:"]


@pytest.mark.parametrize(
    ("override", "origin"),
    [
        ("data={}", "--set data={}"),
        ("network.0=dens", "--set network.0=dens"),
        ("network.1.dense.unit=3", "--set network.1.dense.unit=3"),
        ("training.dtype=float64", "config.yaml with --set training.dtype=float64"),
    ],
)
def test_the_message_names_the_override_that_caused_the_error(refusal, override, origin):
    assert f"{origin}: " in refusal(SMALLEST, override)


def test_a_huge_integer_is_not_printed(tmp_path):
    mapping = yaml.safe_load(SMALLEST) | {"training": {"tile": [10**5000], "epochs": 10**5000}}
    with pytest.raises(ConfigError, match=r"training\.tile: must be a whole number, not \[a number of 16,610 bits\]"):
        parse_config(mapping, source="test")
