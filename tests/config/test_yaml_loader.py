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


AMBIGUOUS = {
    "seed: 010": "010 is 8 in YAML 1.1 and 10 in YAML 1.2; write 8 or 10",
    "seed: +0_17": "+0_17 is 15 in YAML 1.1 and 17 in YAML 1.2; write 15 or 17",
    "seed: 1:30": "1:30 is 90 in YAML 1.1 and a text in YAML 1.2; write 90, or '1:30' in quotes",
    "name: 12:30:45": "12:30:45 is 45045 in YAML 1.1",
    "training: {optimizer: {lr: 1:30.5}}": "1:30.5 is 90.5 in YAML 1.1",
    "training: {epochs: -010}": "-010 is -8 in YAML 1.1 and -10 in YAML 1.2",
}


@pytest.mark.parametrize(("text", "expected"), AMBIGUOUS.items())
def test_a_number_that_versions_of_yaml_read_differently_is_refused_with_what_to_write(refusal, text, expected):
    message = refusal(SMALLEST + text)
    assert expected in message
    assert "line 6" in message
    assert "not valid" not in message


def test_an_ambiguous_number_in_an_override_is_refused(refusal):
    message = refusal(SMALLEST, "training.epochs=010")
    assert message == "--set training.epochs=010: the value: 010 is 8 in YAML 1.1 and 10 in YAML 1.2; write 8 or 10"


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0), ("00", 0), ("007", 7), ("1_000", 1000), ("0b11", 3), ("0x1F", 31), ("+5", 5)]
)
def test_a_number_with_one_meaning_is_accepted(read, text, value):
    assert read(SMALLEST + f"seed: {text}").seed == value


@pytest.mark.parametrize("text", ["08", "0o17", "1,000", "1e3", "1.0"])
def test_a_number_that_is_no_whole_number_in_yaml_is_refused(refusal, text):
    assert "seed: must be a whole number" in refusal(SMALLEST + f"seed: {text}")


@pytest.mark.parametrize("text", ["yes", "on", "True", "true"])
def test_the_words_of_yaml_for_true_are_accepted_where_a_boolean_is_expected(read, text):
    assert read(SMALLEST + f"logging: {{plots: {text}}}").logging.plots is True


@pytest.mark.parametrize(
    ("text", "shown"), [("no", "false"), ("2026-01-02", "2026-01-02"), ("1_000", "1000"), ("0b11", "3"), (".5", "0.5")]
)
def test_a_name_that_yaml_reads_as_something_else_needs_quotes(read, refusal, text, shown):
    assert f"name: must be a text, not {shown}; put it in quotes" in refusal(SMALLEST + f"name: {text}")
    assert read(SMALLEST + f"name: '{text}'").name == text


@pytest.mark.parametrize(
    "number", ["0x" + 6000 * "f", 5000 * "9", "0b" + 200 * "1", "1:" * 3000 + "30", "1." + 5000 * "0"]
)
def test_a_number_of_thousands_of_characters_is_refused(refusal, number):
    message = refusal(SMALLEST + f"seed: {number}")
    assert f"a number of {len(number):,} characters is too long" in message


def test_nested_merges_do_not_fill_the_memory(refusal):
    lines = ["a0: &a0 {x: 1, y: 2}"]
    lines += [f"a{i}: &a{i} {{<<: [{', '.join(9 * [f'*a{i - 1}'])}]}}" for i in range(1, 20)]
    assert "20 errors" in refusal(SMALLEST + "\n".join(lines))


def test_a_merge_fills_in_missing_keys(read):
    text = "data: {name: mnist}\nnetwork: [conv: &c {filters: 2, kernel: 3}, conv: {<<: *c, filters: 4}, flatten]"
    assert [layer.filters for layer in read(text).network[:2]] == [2, 4]
