from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from partrain.config.reader import parse_config, read_config
from partrain.errors import ConfigError
from tests.config.sample_configs import EVERYTHING, SMALLEST

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


def values(mapping, path=""):
    """Return the values of a mapping by their dotted paths."""
    if not isinstance(mapping, dict):
        return {path.removesuffix("."): mapping}
    return {key: value for name, inner in mapping.items() for key, value in values(inner, f"{path}{name}.").items()}


def test_every_value_of_the_file_is_read(read):
    resolved = values(read(EVERYTHING).to_mapping())
    written = values(yaml.safe_load(EVERYTHING))
    assert {key: resolved[key] for key in written} == written


@pytest.mark.parametrize("text", [SMALLEST, EVERYTHING], ids=["smallest", "everything"])
def test_a_written_configuration_reads_back_equal(read, text):
    config = read(text)
    assert parse_config(config.to_mapping(), source="test") == config
    assert read(config.to_yaml()) == config
    assert read(config.to_yaml()).to_yaml() == config.to_yaml()


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_the_configurations_in_configs_are_valid(read, path):
    config = read_config(path)
    assert config.name == path.stem
    assert read(config.to_yaml()) == config


def test_there_are_configurations_to_start_from():
    names = {path.stem for path in CONFIGS}
    assert names >= {"mnist", "fashion-mnist", "synthetic-digits", "lenet5", "article"}


@pytest.mark.parametrize(
    ("content", "expected"),
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
def test_a_file_that_is_not_a_configuration_is_refused_with_what_it_holds(refusal, content, expected):
    assert expected in refusal(content)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*nowhere\.yaml: No such file"):
        read_config(tmp_path / "nowhere.yaml")


def test_a_directory_is_not_a_configuration(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*: Is a directory"):
        read_config(tmp_path)


def test_an_impossible_path_is_an_error():
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        read_config("a\0b")


def test_text_in_any_script_is_kept(read):
    config = read(SMALLEST + "name: Ziffern-Übung-数字")
    assert config.name == "Ziffern-Übung-数字"
    assert "Übung-数字" in config.to_yaml()


def test_a_configuration_cannot_be_changed(read):
    with pytest.raises(ValueError, match="frozen"):
        read(SMALLEST).seed = 3


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (6, "training.block: 6 is no multiple of training.tile, 4; give 8, for example"),
        (0, "training.block: must be greater than 0, not 0"),
    ],
)
def test_a_block_has_whole_tiles(refusal, read, block, words):
    assert words in refusal(SMALLEST + f"training: {{block: {block}}}")
    assert read(SMALLEST + "training: {block: 400, tile: 40}").training.block == 400
