from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partrain.config.yaml_loader import load_yaml
from partrain.config.yaml_writer import dump_yaml
from tests.config.sample_configs import EVERYTHING


@pytest.mark.parametrize(
    "name", ["1e3", "-.5E-3", "010", "1:30", "1_000", "no", "2026-01-02", "~", "=", "<<", "0o17", "08"]
)
def test_a_text_that_looks_like_something_else_is_read_back_as_a_text(name):
    assert load_yaml(dump_yaml({"name": name}), "test") == {"name": name}


@given(
    st.text(alphabet="0123456789eE+-._:xob ~nyes", max_size=8)
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False)
    | st.booleans()
    | st.none()
)
def test_a_value_is_read_back_as_it_was_written(value):
    read_back = load_yaml(dump_yaml({"key": [value]}), "test")
    assert read_back == {"key": [value]}
    assert type(read_back["key"][0]) is type(value)


def test_a_configuration_is_written_and_read_back(read):
    config = read(EVERYTHING, "name='1e3'")
    assert read(config.to_yaml()) == config
