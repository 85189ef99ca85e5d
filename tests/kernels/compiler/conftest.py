from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.kernels.compiler.tiny_kernel import (
    FRESH,
    TINY_KERNEL,
    USE_TINY_KERNEL,
    run,
)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    (folder / "tiny.py").write_text(TINY_KERNEL)
    return folder


@pytest.fixture(scope="module")
def good_folder(sources, tmp_path_factory):
    """A folder with a cache that holds the tiny kernel."""
    folder = tmp_path_factory.mktemp("good")
    assert run(USE_TINY_KERNEL, sources=sources, folder=folder) == FRESH
    return folder


@pytest.fixture
def used(good_folder, tmp_path):
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(good_folder, tmp_path / "used"))
