"""The reference of the configuration says what the schema does, and the page beside the examples shows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from partrain.config import reference
from partrain.config.schema.layer_entries import LAYERS
from partrain.config.yaml_loader import load_yaml
from tests.config.sample_configs import EVERYTHING, SMALLEST
from tests.config.test_reader import values

PAGE = Path(__file__).parents[2] / "configs" / "README.md"
BEGIN, END = "<!-- configuration keys -->\n", "\n<!-- end of configuration keys -->"

KEYS = {key.key: key for key in reference.configuration_keys()}


def test_the_page_shows_the_table_that_the_program_prints():
    text = PAGE.read_text()
    shown = text[text.index(BEGIN) + len(BEGIN) : text.index(END)]
    assert shown == reference.to_markdown(list(KEYS.values()))


def test_every_key_that_a_configuration_can_have_is_listed(read):
    mapping = read(EVERYTHING).to_mapping()
    layers = {f"network.N.{kind}" for kind in LAYERS}
    assert (set(values(mapping)) | layers) <= set(KEYS)


def test_every_key_has_a_type_and_a_meaning_in_whole_sentences():
    assert [key.key for key in KEYS.values() if not key.type] == []
    assert [key.key for key in KEYS.values() if not key.meaning.endswith(".") or "  " in key.meaning] == []


def test_the_defaults_in_the_list_are_those_that_a_run_gets(read):
    resolved = values(read(SMALLEST).to_mapping())
    del resolved["data.name"], resolved["network"]
    assert resolved == {key: KEYS[key].default for key in resolved}


def test_required_keys_are_those_that_a_configuration_cannot_do_without(refusal):
    required = {key for key in KEYS if KEYS[key].required and not key.startswith("network.N")}
    assert required == {
        "data.fold.number",
        "data.fold.of",
        "data.name",
        "network",
        "training.augment.crop.padding",
        "training.augment.elastic.alpha",
        "training.augment.elastic.sigma",
        "training.cutmix.alpha",
        "training.ema.decay",
        "training.mixup.alpha",
        "training.privacy.delta",
    }
    message = refusal(
        "data: {fold: {}}\ntraining: {augment: {crop: {}, elastic: {}}, cutmix: {}, ema: {}, mixup: {}, privacy: {}}"
    )
    assert [key for key in required if f"{key}: this key is needed" not in message] == []


@pytest.mark.parametrize("width", [20, 80, 100, 300])
def test_the_text_fits_the_terminal(width):
    lines = reference.to_text(list(KEYS.values()), width).splitlines()
    assert max(map(len, lines)) <= max(80, width)
    assert [key for key in KEYS if not any(line.startswith(f"{key} ") for line in lines)] == []


def test_bounds_and_choices_are_part_of_the_type():
    assert KEYS["training.batch_size"].type == "integer ≥ 1"
    assert KEYS["training.optimizer.beta1"].type == "number ≥ 0 and < 1"
    assert KEYS["training.schedule.name"].type == "constant, cosine, step, linear, one_cycle, warm_restarts or plateau"
    assert KEYS["network.N.conv.padding"].type == "integer ≥ 0 or [rows, columns]"
    assert KEYS["training.per_example.statistics"].type == "true or false"


def test_a_default_is_written_as_in_a_configuration_file():
    for key in KEYS.values():
        if not key.required and key.type != "layer":
            assert load_yaml(key.default_text(), "test") == key.default
