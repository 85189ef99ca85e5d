from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partrain.errors import ConfigError
from partrain.store.run_directory import RunDirectory
from partrain.store.run_name import validate_run_name
from tests.store.new_runs import STARTED


@pytest.mark.parametrize("name", ["mnist", "a", "Größe 5+", "手書き数字", "हिन्दी", "v1.0_x-y", "a" * 100, "-"])
def test_names_in_any_script_are_allowed(name: str, tmp_path: Path) -> None:
    validate_run_name(name)
    assert RunDirectory.create(tmp_path, name, STARTED).path.parent == tmp_path


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("", "is empty"),
        ("../../x", "'/'"),
        ("a/b", "'/'"),
        (".hidden", "starts with a dot"),
        ("..", "starts with a dot"),
        ("a\0b", r"'\\x00'"),
        ("a\nb", r"'\\n'"),
        ("a\u202eb", "u202e"),
        ("a\udc80", "udc80"),
        ("a\\b", "contains"),
        ("a:b", "':'"),
        (" a", "space"),
        ("a ", "space"),
        ("a" * 300, "300 characters. Shorten it to at most 100"),
        ("手" * 70, "210 bytes"),
    ],
)
def test_other_names_are_refused_with_the_rule_that_they_break(name: str, rule: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rule) as caught:
        RunDirectory.create(tmp_path / "runs", name, STARTED)
    assert str(caught.value).startswith("name: ")
    assert len(str(caught.value)) < 300
    assert os.listdir(tmp_path) == []


@settings(deadline=None)
@given(st.text(max_size=120))
def test_an_allowed_name_is_one_path_component_and_fits(name: str) -> None:
    try:
        validate_run_name(name)
    except ConfigError:
        return
    assert Path("runs", f"20261123-171502-{name}-16").parts[:-1] == ("runs",)
    assert len(name.encode()) <= 200
    assert "\0" not in name
