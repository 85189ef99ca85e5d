from __future__ import annotations

import os
from pathlib import Path

import pytest

from partrain.system.cache_directories import data_directory, require_lasting_cache, user_cache_directory
from partrain.system.process_directory import process_directory


@pytest.fixture
def _no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable names a directory, and the user id has no entry in the list of users."""
    for name in ("HOME", "XDG_CACHE_HOME", "PARTRAIN_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)


def test_cache_is_where_the_variable_says_or_in_the_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert user_cache_directory() == Path("/caches/partrain")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert user_cache_directory() == Path("/home/someone/.cache/partrain")
    require_lasting_cache()


@pytest.mark.usefixtures("_no_home")
def test_unknown_user_gets_a_cache_for_the_life_of_the_process() -> None:
    assert user_cache_directory() == data_directory() == process_directory() / "cache"
    with pytest.raises(FileNotFoundError, match="set HOME or XDG_CACHE_HOME"):
        require_lasting_cache()


@pytest.mark.usefixtures("_no_home")
def test_data_directory_in_an_unknown_home_is_not_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARTRAIN_DATA_DIR", "~/data")
    assert data_directory() == Path("~/data")
