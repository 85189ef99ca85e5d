"""Reference runs, which nothing disturbs; tests compare with them, and must not change them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.whole_runs import LONG, Runs


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 20 steps."""
    return Runs(tmp_path_factory.mktemp("undisturbed")).train()


@pytest.fixture(scope="session")
def undisturbed_long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 400 steps."""
    return Runs(tmp_path_factory.mktemp("undisturbed-long")).train(LONG)
