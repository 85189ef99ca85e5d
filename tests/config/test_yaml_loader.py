from __future__ import annotations

import re

import pytest

from tests.config.sample_configs import SMALLEST


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
def test_a_text_is_not_taken_for_a_number(refusal, text):
    assert "training.optimizer.lr: must be" in refusal(SMALLEST + f"training: {{optimizer: {{lr: {text}}}}}")


@pytest.mark.parametrize(
    "text",
    [
        SMALLEST + "seed: 1\nseed: 2\n",
        SMALLEST + "training: {tile: 1, epochs: 2, tile: 1}\n",
        "data: {name: mnist}\nnetwork: [dense: {units: 1, units: 2}]",
    ],
)
def test_a_repeated_key_is_refused(refusal, text):
    assert "appears twice" in refusal(text)


INVALID_YAML = {
    "colon": "a: b: c",
    "open bracket": "data: {name: mnist",
    "tab": "data:\n\tname: mnist",
    "two documents": SMALLEST + "---\n" + SMALLEST,
    "control character": SMALLEST + "name: 'a\x00b'",
    "unknown anchor": SMALLEST + "name: *missing",
    "object of Python": SMALLEST + "name: !!python/object/apply:os.system [echo]",
    "key that is a list": SMALLEST + "[1, 2]: 3",
    "key that is a mapping": SMALLEST + "{a: 1}: 3",
    "key that is a set": SMALLEST + "? !!set {a}\n: 1",
    "deeply nested lists": SMALLEST + "name: " + 3000 * "[" + 3000 * "]",
    "deeply nested mappings": SMALLEST + "name: " + 3000 * "{a: " + 3000 * "}",
    "impossible date": SMALLEST + "name: 2026-13-45",
    "number without digits": SMALLEST + "seed: 0x_",
    "enormous number": SMALLEST + "seed: " + 5000 * "9",
    "invalid boolean": SMALLEST + "name: !!bool perhaps",
    "invalid number": SMALLEST + "seed: !!int many",
    "mapping that is a list": SMALLEST + "training: !!map [a]",
}


@pytest.mark.parametrize("text", INVALID_YAML.values(), ids=INVALID_YAML)
def test_invalid_yaml_is_refused_with_one_line(refusal, text):
    message = refusal(text)
    assert "not valid YAML" in message
    assert "\n" not in message
    assert len(message) < 1000


def test_an_error_in_the_yaml_is_reported_with_its_line(refusal):
    message = refusal(SMALLEST + "seed: 1\nseed: 2\n")
    assert "line 7" in message
    assert "unicode string" not in message


@pytest.mark.parametrize("key", ["1", "null", "true", "1.5", "2026-01-02", "~"])
@pytest.mark.parametrize("section", ["", "training: "])
def test_a_key_that_is_not_a_word_is_refused_with_its_line_or_path(refusal, key, section):
    message = refusal(f"{SMALLEST}{section}{{{key}: 2}}" if section else f"{SMALLEST}{key}: 2")
    path = section.replace(": ", ".") + key
    assert re.search(rf"line 6\b|^  {re.escape(path)}: ", message, re.MULTILINE)


def test_a_mapping_that_contains_itself_is_refused(refusal):
    refusal(SMALLEST + "training: &t {optimizer: *t}")
    refusal("data: {name: mnist}\nnetwork: &n [relu, *n]")
