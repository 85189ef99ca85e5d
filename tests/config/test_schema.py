from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from partrain.config.schema import (
    Augment,
    Checkpoints,
    Config,
    Conv,
    Data,
    Dense,
    Dropout,
    Elastic,
    Flatten,
    Logging,
    MaxPool,
    Optimizer,
    Relu,
    Schedule,
    Training,
    Workers,
)
from partrain.config.yaml_file import parse_config, read_config
from partrain.errors import ConfigError

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))

SMALLEST = """
data: {name: mnist}
network:
  - flatten
  - dense: {units: 10}
"""

EVERYTHING = """
format: 1
name: everything
seed: 9223372036854775807
data:
  name: idx
  path: some/where
  train_examples: 10
  validation_examples: 0
  when_unavailable: error
network:
  - conv: {filters: 4, kernel: [5, 3], stride: [2, 1], padding: [0, 2]}
  - relu
  - max_pool: {window: [2, 3], stride: 1}
  - conv: {filters: 4, kernel: 1}
  - relu:
  - flatten: {}
  - dense: {units: 10}
training:
  epochs: 3
  max_steps: 5
  batch_size: 7
  tile: 2
  optimizer: {name: adam, lr: 1e-3, beta1: 0, beta2: 0.5, eps: 1.5e-7, weight_decay: 1}
  schedule: {name: step, warmup_steps: 3, decay_steps: 4, final_lr: 1e-5, every_steps: 6, factor: 1}
  kernels: loops
  dtype: float64
logging: {every_steps: 1, evaluate_every_epochs: null, evaluate_every_steps: 8}
checkpoints: {every_steps: null, keep_last: 1, keep_best: false}
workers: {max_restarts: 0}
"""


@pytest.fixture
def read(tmp_path):
    """Return a function that reads a text as a configuration file."""

    def read(text, *overrides):
        path = tmp_path / "given.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_config(path, overrides)

    return read


@pytest.fixture
def refusal(read):
    """Return a function that reads a text, which must be refused, and gives the message."""

    def refusal(text, *overrides):
        with pytest.raises(ConfigError) as caught:
            read(text, *overrides)
        message = str(caught.value)
        assert "given.yaml" in message or "--set" in message
        assert "Traceback" not in message
        return message

    return refusal


def test_the_defaults_are_those_of_the_reference(read):
    assert read(SMALLEST).to_mapping() == {
        "format": 1,
        "name": "run",
        "seed": 0,
        "data": {
            "name": "mnist",
            "path": None,
            "size": None,
            "channels": None,
            "on_broken": None,
            "train_examples": None,
            "validation_examples": None,
            "when_unavailable": "synthetic-digits",
            "label_noise": 0.0,
        },
        "network": ["flatten", {"dense": {"units": 10}}],
        "training": {
            "epochs": 1,
            "max_steps": None,
            "batch_size": 32,
            "tile": 4,
            "optimizer": {
                "name": "adam",
                "lr": 0.001,
                "beta1": 0.9,
                "beta2": 0.999,
                "eps": 1e-8,
                "weight_decay": 0,
            },
            "schedule": {
                "name": "constant",
                "warmup_steps": 0,
                "decay_steps": None,
                "final_lr": 0,
                "every_steps": 1000,
                "factor": 0.1,
            },
            "stop_early": None,
            "privacy": None,
            "class_weights": None,
            "per_example": {"statistics": False, "by_layer": False, "clip": None},
            "augment": None,
            "kernels": "fast",
            "dtype": "float32",
        },
        "logging": {"every_steps": 10, "evaluate_every_epochs": 1, "evaluate_every_steps": None, "plots": True},
        "checkpoints": {"every_steps": 500, "keep_last": 2, "keep_best": True},
        "workers": {"max_restarts": 8},
    }


def test_every_field_is_read(read):
    assert read(EVERYTHING) == Config(
        name="everything",
        seed=2**63 - 1,
        data=Data(name="idx", path="some/where", train_examples=10, validation_examples=0, when_unavailable="error"),
        network=[
            Conv(filters=4, kernel=[5, 3], stride=[2, 1], padding=[0, 2]),
            Relu(),
            MaxPool(window=[2, 3], stride=1),
            Conv(filters=4, kernel=1),
            Relu(),
            Flatten(),
            Dense(units=10),
        ],
        training=Training(
            epochs=3,
            max_steps=5,
            batch_size=7,
            tile=2,
            optimizer=Optimizer(lr=0.001, beta1=0, beta2=0.5, eps=1.5e-7, weight_decay=1),
            schedule=Schedule(name="step", warmup_steps=3, decay_steps=4, final_lr=0.00001, every_steps=6, factor=1),
            kernels="loops",
            dtype="float64",
        ),
        logging=Logging(every_steps=1, evaluate_every_epochs=None, evaluate_every_steps=8),
        checkpoints=Checkpoints(every_steps=None, keep_last=1, keep_best=False),
        workers=Workers(max_restarts=0),
    )


@pytest.mark.parametrize("text", [SMALLEST, EVERYTHING], ids=["smallest", "everything"])
def test_a_configuration_survives_being_written_and_read(read, text):
    config = read(text)
    assert parse_config(config.to_mapping(), source="a test") == config
    assert read(config.to_yaml()) == config
    assert read(config.to_yaml()).to_yaml() == config.to_yaml()


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_the_configurations_that_come_with_the_program_are_good(read, path):
    config = read_config(path)
    assert config.name == path.stem
    assert read(config.to_yaml()) == config


def test_there_are_configurations_to_start_from():
    names = {path.stem for path in CONFIGS}
    assert names >= {"mnist", "fashion-mnist", "synthetic-digits", "lenet5", "article"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E-3", 0.001),
        ("1.e-3", 0.001),
        (".1e-2", 0.001),
        ("+1e3", 1000),
        ("1e0", 1),
        ("1.0e-3", 0.001),
        ("0.001", 0.001),
        ("3", 3),
    ],
)
def test_a_number_with_an_exponent_is_a_number(read, text, value):
    config = read(SMALLEST + f"training: {{optimizer: {{lr: {text}}}}}")
    assert config.training.optimizer.lr == value
    assert isinstance(config.training.optimizer.lr, float)
    assert read(SMALLEST, f"training.optimizer.lr={text}") == config


@pytest.mark.parametrize("text", ["'1e-3'", "1e", "e3", "1e-3x", "1-e3", ".e3", "fast", "[1]", "null", "true"])
def test_what_is_no_number_is_not_taken_for_one(refusal, text):
    assert "training.optimizer.lr: must be" in refusal(SMALLEST + f"training: {{optimizer: {{lr: {text}}}}}")


@pytest.mark.parametrize(("text", "pair"), [("3", (3, 3)), ("[3, 4]", (3, 4)), ("[3, 3]", (3, 3))])
def test_a_size_is_a_number_or_rows_and_columns(read, text, pair):
    layer = read(f"data: {{name: mnist}}\nnetwork: [max_pool: {{window: {text}, stride: {text}}}]").network[0]
    assert (layer.window, layer.stride) == (pair, pair)


def test_a_pair_of_equals_is_written_as_one_number(read):
    network = read(EVERYTHING).to_mapping()["network"]
    assert network[0] == {"conv": {"filters": 4, "kernel": [5, 3], "stride": [2, 1], "padding": [0, 2]}}
    assert network[2] == {"max_pool": {"window": [2, 3], "stride": 1}}
    assert network[3] == {"conv": {"filters": 4, "kernel": 1, "stride": 1, "padding": 0}}


@pytest.mark.parametrize(
    "text",
    ["0", "-1", "[3, 0]", "[-1, 3]", "[3]", "[3, 3, 3]", "[]", "1.5", "[1.5, 1]", "true", "x", "{a: 1}", "null"],
)
def test_a_size_that_makes_no_sense_is_refused(refusal, text):
    network = f"network: [conv: {{filters: 1, kernel: {text}}}, flatten, dense: {{units: 10}}]"
    assert "network.0.conv.kernel" in refusal("data: {name: mnist}\n" + network)


def test_padding_may_be_zero_but_not_negative(read, refusal):
    text = "data: {{name: mnist}}\nnetwork: [conv: {{filters: 1, kernel: 3, padding: {}}}]"
    assert read(text.format("0")).network[0].padding == (0, 0)
    assert read(text.format("[0, 2]")).network[0].padding == (0, 2)
    assert "network.0.conv.padding" in refusal(text.format("-1"))


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


@pytest.mark.parametrize(("text", "told"), UNKNOWN_KEYS.items())
def test_an_unknown_key_is_refused_with_the_nearest_one(refusal, text, told):
    message = refusal(SMALLEST + text)
    assert told in message
    if "did you mean" not in told:
        assert "did you mean" not in message


def test_the_section_that_holds_an_unknown_key_is_not_what_was_meant(refusal):
    assert "did you mean training?" not in refusal(SMALLEST + "training: {learning: 3}")


def test_an_unknown_key_of_a_layer_is_refused_with_the_nearest_one(refusal):
    message = refusal("data: {name: mnist}\nnetwork: [conv: {filters: 1, kernel: 3, strides: 2}]")
    assert "network.0.conv.strides: unknown key; did you mean stride?" in message


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


@pytest.mark.parametrize(("entry", "told"), LAYER_ERRORS.items())
def test_a_layer_that_is_wrong_is_told_by_its_place(refusal, entry, told):
    message = refusal(f"data: {{name: mnist}}\nnetwork:\n  - {entry}\n  - relu\n")
    assert "network.0" in message
    assert told in message


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
    "training: {optimizer: {name: sgd}}": "training.optimizer.name",
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
    "training: {schedule: {name: linear}}": "training.schedule.name",
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
def test_a_value_out_of_its_bounds_or_of_another_type_is_told_with_its_key(refusal, text, key):
    section = key.partition(".")[0]
    mapping = {name: value for name, value in yaml.safe_load(SMALLEST).items() if name != section}
    message = refusal(f"{yaml.safe_dump(mapping)}\n{text}")
    assert re.search(rf"^  {re.escape(key)}: ", message, re.MULTILINE)


def test_all_errors_are_told_at_once(refusal):
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


def test_messages_speak_of_the_file_and_not_of_python(refusal):
    text = "data: 5\ntraining:\nnetwork: [conv: {filters: 1, kernel: [1, 2, 3]}]\nworkers: [1]"
    message = refusal(text) + refusal("data: {name: mnist}\nnetwork: []")
    for word in ("instance", "dictionary", "Tuple", "validation", "Training", "string"):
        assert word not in message


def test_the_key_that_is_missing_is_named(refusal):
    message = refusal("name: x")
    assert "data: this key is needed" in message
    assert "network: this key is needed" in message


@pytest.mark.parametrize("name", ["idx", "arrays"])
def test_data_of_ones_own_needs_a_path(refusal, name):
    assert "data.path" in refusal(f"data: {{name: {name}}}\nnetwork: [flatten]")


def test_data_of_the_catalogue_takes_no_path(refusal):
    assert "data.path" in refusal("data: {name: mnist, path: x}\nnetwork: [flatten]")


def test_float64_needs_the_loops(read, refusal):
    message = refusal(SMALLEST + "training: {dtype: float64}")
    assert "training" in message
    assert "kernels: loops" in message
    assert read(SMALLEST + "training: {dtype: float64, kernels: loops}").training.dtype == "float64"


@pytest.mark.parametrize(
    "text",
    [
        SMALLEST + "seed: 1\nseed: 2\n",
        SMALLEST + "training: {tile: 1, epochs: 2, tile: 1}\n",
        "data: {name: mnist}\nnetwork: [dense: {units: 1, units: 2}]",
    ],
)
def test_a_key_that_stands_twice_is_refused(refusal, text):
    assert "stands twice" in refusal(text)


NO_YAML = {
    "colon": "a: b: c",
    "open bracket": "data: {name: mnist",
    "tab": "data:\n\tname: mnist",
    "two documents": SMALLEST + "---\n" + SMALLEST,
    "control character": SMALLEST + "name: 'a\x00b'",
    "unknown anchor": SMALLEST + "name: *nobody",
    "object of Python": SMALLEST + "name: !!python/object/apply:os.system [echo]",
    "key that is a list": SMALLEST + "[1, 2]: 3",
    "key that is a mapping": SMALLEST + "{a: 1}: 3",
    "key that is a set": SMALLEST + "? !!set {a}\n: 1",
    "deeply nested lists": SMALLEST + "name: " + 3000 * "[" + 3000 * "]",
    "deeply nested mappings": SMALLEST + "name: " + 3000 * "{a: " + 3000 * "}",
    "impossible date": SMALLEST + "name: 2026-13-45",
    "number without digits": SMALLEST + "seed: 0x_",
    "enormous number": SMALLEST + "seed: " + 5000 * "9",
    "truth that is none": SMALLEST + "name: !!bool perhaps",
    "number that is none": SMALLEST + "seed: !!int many",
    "mapping that is a list": SMALLEST + "training: !!map [a]",
}


@pytest.mark.parametrize("text", NO_YAML.values(), ids=NO_YAML)
def test_what_is_no_good_yaml_is_refused_with_a_message(refusal, text):
    message = refusal(text)
    assert "not valid YAML" in message
    assert "\n" not in message
    assert len(message) < 1000


def test_the_place_of_an_error_in_the_yaml_is_its_line_in_the_file(refusal):
    message = refusal(SMALLEST + "seed: 1\nseed: 2\n")
    assert "line 7" in message
    assert "unicode string" not in message


@pytest.mark.parametrize("key", ["1", "null", "true", "1.5", "2026-01-02", "~"])
@pytest.mark.parametrize("section", ["", "training: "])
def test_a_key_that_is_no_word_is_refused_with_its_place(refusal, key, section):
    """Its line, or itself as it stands in the file."""
    message = refusal(f"{SMALLEST}{section}{{{key}: 2}}" if section else f"{SMALLEST}{key}: 2")
    path = section.replace(": ", ".") + key
    assert re.search(rf"line 6\b|^  {re.escape(path)}: ", message, re.MULTILINE)


def test_a_mapping_that_contains_itself_is_refused(refusal):
    refusal(SMALLEST + "training: &t {optimizer: *t}")
    refusal("data: {name: mnist}\nnetwork: &n [relu, *n]")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"# only a comment\n", "is empty"),
        (b"- relu\n", "holds a list"),
        (b"just words\n", "holds a text"),
        (b"3\n", "holds a single value"),
        (bytes(range(256)), "not a text file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not a text file"),
        ("name: Zahl".encode("utf-16"), "not a text file"),
    ],
)
def test_a_file_that_is_no_configuration_says_what_it_is(refusal, content, told):
    assert told in refusal(content)


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*nowhere\.yaml: No such file"):
        read_config(tmp_path / "nowhere.yaml")


def test_a_folder_is_no_configuration(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*: Is a directory"):
        read_config(tmp_path)


def test_a_path_that_cannot_be_is_an_error():
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        read_config("a\0b")


def test_other_languages_are_welcome(read):
    config = read(SMALLEST + "name: Ziffern-Übung-数字")
    assert config.name == "Ziffern-Übung-数字"
    assert "Übung-数字" in config.to_yaml()


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
def test_an_override_sets_its_key_alone(read, override, holds):
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


def test_an_override_mends_a_file_without_the_key(read):
    assert read("data: {name: mnist}", "network=[flatten]").network == [Flatten()]
    assert read("network: [flatten]", "data.name=mnist").data.name == "mnist"


def test_an_override_of_an_empty_section_fills_it(read):
    assert read(SMALLEST + "training:\n", "training.tile=2").training.tile == 2


def test_an_override_changes_one_of_two_layers_that_the_file_writes_once(read):
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
    "network.9=relu": "'9' is no place in a list of 2",
    "network.-1=relu": "'-1' is no place in a list of 2",
    "network.x.dense=1": "'x' is no place in a list of 2",
    "network.0.units=1": "units",
    "trainig.epochs=1": "trainig: unknown key; did you mean training?",
    "training.epoch=1": "training.epoch: unknown key; did you mean epochs?",
    "training.epochs=none": "training.epochs: must be",
    "training..epochs=1": "unknown key",
    "data.name=": "data.name",
}


@pytest.mark.parametrize(("override", "told"), BAD_OVERRIDES.items(), ids=[key[:30] for key in BAD_OVERRIDES])
def test_an_override_that_makes_no_sense_is_refused(refusal, override, told):
    assert told in refusal(SMALLEST + "seed: 1\ntraining: {epochs: 2}", override)


def test_a_configuration_cannot_be_changed(read):
    with pytest.raises(ValueError, match="frozen"):
        read(SMALLEST).seed = 3


def test_the_identity_is_all_that_results_are_a_function_of(read):
    config = read(SMALLEST)
    digest = config.identity_digest()
    assert re.fullmatch("[0-9a-f]{64}", digest)
    free = (
        "logging.every_steps=3",
        "checkpoints.every_steps=null",
        "workers.max_restarts=0",
        "training.epochs=5",
        "training.max_steps=7",
    )
    bound = (
        "seed=1",
        "name=other",
        "data.train_examples=5",
        "network.1.dense.units=11",
        "training.tile=2",
        "training.augment={}",
        "training.augment={shift: 1}",
        "training.batch_size=16",
        "training.optimizer.lr=0.1",
        "training.schedule.warmup_steps=1",
        "training.kernels=loops",
    )
    assert read(SMALLEST, *free).identity_digest() == digest
    assert len({read(SMALLEST, override).identity_digest() for override in bound} | {digest}) == len(bound) + 1
    assert read(SMALLEST, "training.optimizer.weight_decay=0").identity_digest() == digest


def test_how_often_is_evaluated_is_identity_where_it_decides_when_to_stop(read):
    config = read(SMALLEST)
    stopping = read(SMALLEST, "training.stop_early={}")
    assert "stop_early" not in config.identity()["training"]  # as in the runs from before there was such a field
    assert stopping.identity()["training"]["stop_early"] == {
        "metric": "validation/loss",
        "patience": 3,
        "min_delta": 0,
    }
    often = ("logging.evaluate_every_steps=5", "logging.evaluate_every_epochs=null")
    assert read(SMALLEST, *often).identity_digest() == config.identity_digest()
    assert read(SMALLEST, "training.stop_early={}", *often).identity_digest() != stopping.identity_digest()
    rarely = ("logging.every_steps=1", "training.epochs=9")
    assert read(SMALLEST, "training.stop_early={}", *rarely).identity_digest() == stopping.identity_digest()
    assert read(stopping.to_yaml()) == stopping


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["training.stop_early.patience=0"], "training.stop_early.patience: "),
        (["training.stop_early.metric=train/loss"], "training.stop_early.metric: "),
        (["training.stop_early.min_delta=-1"], "training.stop_early.min_delta: "),
        (["training.stop_early=3"], "training.stop_early: must be a mapping of keys to values, not 3"),
        (["training.stop_early.patient=3"], "training.stop_early.patient: unknown key; did you mean patience?"),
        (["patience=3"], "patience: unknown key; did you mean training.stop_early.patience?"),
        (["training.stop_early={}", "logging.evaluate_every_epochs=null"], "there are none on the way; set logging."),
    ],
)
def test_errors_in_when_to_stop_early_are_told_with_their_keys(read, overrides, expected):
    with pytest.raises(ConfigError) as refusal:
        read(SMALLEST, *overrides)
    assert expected in str(refusal.value)


def test_augmentation_is_read_and_stays_as_it_was_read(read):
    config = read(SMALLEST, "training.augment={shift: [2, 0.5], rotation: 10, elastic: {alpha: 20, sigma: 4}}")
    elastic = Elastic(alpha=20.0, sigma=4.0)
    assert config.training.augment == Augment(shift=(2.0, 0.5), rotation=10.0, scale=0.0, elastic=elastic)
    assert read(config.to_yaml()) == config
    assert read(SMALLEST, "training.augment={shift: 1.5}").training.augment == Augment(shift=(1.5, 1.5))
    assert read(SMALLEST, "training.augment=null") == read(SMALLEST)


def test_a_configuration_without_augmentation_has_the_identity_from_before_there_was_any(read):
    assert "augment" not in read(SMALLEST).identity()["training"]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training.augment={shift: -1}", "training.augment.shift.0: must be greater than or equal to 0, not -1"),
        ("training.augment={shift: a}", "training.augment.shift: must be a number or [rows, columns]"),
        ("training.augment={shift: yes}", "training.augment.shift: must be a number or [rows, columns]"),
        ("training.augment={rotation: 181}", "training.augment.rotation: must be less than or equal to 180, not 181"),
        ("training.augment={scale: 1}", "training.augment.scale: must be less than 1, not 1"),
        ("training.augment={elastic: {alpha: 1}}", "training.augment.elastic.sigma: this key is needed"),
        (
            "training.augment={elastic: {alpha: 1, sigma: 0.5}}",
            "training.augment.elastic.sigma: must be greater than or equal to 1, not 0.5",
        ),
        ("training.augment={elastic: {alpha: -1, sigma: 4}}", "training.augment.elastic.alpha: must be greater than"),
        ("training.augment={rotaton: 3}", "training.augment.rotaton: unknown key; did you mean rotation?"),
        ("training.augment=mild", "training.augment: must be a mapping of keys to values, not 'mild'"),
        ("network.0.dropout.rate=1", "network.0.dropout.rate: must be less than 1, not 1"),
        ("network.0={dropout: {rate: -0.1}}", "network.0.dropout.rate: must be greater than or equal to 0, not -0.1"),
        ("network.0={dropout: {rat: 0.1}}", "network.0.dropout.rat: unknown key; did you mean rate?"),
        ("network.0=dropout", "network.0.dropout.rate: this key is needed"),
        ("network.0={dropout: 0.5}", "the fields of dropout are written as `dropout: {…}`"),
    ],
)
def test_errors_in_what_is_random_are_told_with_their_keys(read, override, expected):
    text = (
        SMALLEST if "network" not in override else SMALLEST.replace("- flatten", "- dropout: {rate: 0.5}\n  - flatten")
    )
    with pytest.raises(ConfigError, match=re.escape(expected)):
        read(text, override)


def test_dropout_is_read_and_written(read):
    config = read(SMALLEST, "network=[flatten, dropout: {rate: 0.5}, dense: {units: 10}]")
    assert config.network[1] == Dropout(rate=0.5)
    assert read(config.to_yaml()) == config
