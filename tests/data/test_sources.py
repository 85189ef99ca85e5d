from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from partrain.config.schema.data import Data
from partrain.data.catalog import CATALOG, DataUnavailable, NamedDataset
from partrain.data.dataset import Dataset
from partrain.data.idx import FILE_NAMES
from partrain.data.sources import load_dataset
from partrain.errors import DataError
from tests.data.test_idx import write_folder


@pytest.fixture(autouse=True)
def nothing_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the catalogue's data sets unavailable, and the synthetic digits quick to draw."""
    monkeypatch.setenv("PARTRAIN_DATA_DIR", str(tmp_path / "data"))
    for name, entry in list(CATALOG.items()):
        monkeypatch.setitem(CATALOG, name, NamedDataset(entry.sha256, entry.class_names, mirrors=()))

    def draw_digits(first: int, last: int, *, seed: int, split: str) -> tuple[Any, Any]:
        num = last - first
        rng = np.random.default_rng([seed, split == "train"])
        return rng.integers(0, 256, (num, 1, 28, 28), np.uint8), rng.integers(0, 10, num)

    fake = types.SimpleNamespace(draw_digits=draw_digits)
    monkeypatch.setitem(sys.modules, "partrain.data.synthetic_digits", fake)  # type: ignore[arg-type]


def load(
    name: str, path: str | None = None, when_unavailable: str = "error", seed: int = 0
) -> tuple[Dataset, list[str], list[str]]:
    said: list[str] = []
    warned: list[str] = []
    dataset = load_dataset(
        Data(name=name, path=path, when_unavailable=when_unavailable),  # type: ignore[arg-type]
        seed=seed,
        synthetic_examples=(60, 10),
        num_decoders=1,
        say=said.append,
        warn=warned.append,
    )
    return dataset, said, warned


def test_synthetic_digits_are_drawn_in_the_numbers_asked_for_without_a_warning() -> None:
    dataset, said, warned = load("synthetic-digits")
    assert dataset.name == dataset.source == "synthetic-digits"
    assert dataset.train.images.shape == (60, 1, 28, 28)
    assert dataset.test.images.shape == (10, 1, 28, 28)
    assert dataset.class_names == tuple("0123456789")
    assert said == ["drawing 70 synthetic digits"]
    assert warned == []


def test_another_seed_draws_another_data_set() -> None:
    digests = [load("synthetic-digits", seed=seed)[0].digest for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_synthetic_digits_stand_in_under_their_own_name_with_a_framed_warning(name: str, tmp_path: Path) -> None:
    dataset, _, warned = load(name, when_unavailable="synthetic-digits")
    assert dataset.name == dataset.source == "synthetic-digits"
    assert dataset.digest == load("synthetic-digits")[0].digest
    (warning,) = warned
    lines = warning.strip().splitlines()
    assert f"NOT {name.upper()}" in lines[0]
    assert lines[1] == lines[-1] == "*" * 100
    assert "Synthetic digits" in lines[2]
    assert f"{tmp_path / 'data' / name}: No such file" in warning
    assert f"{FILE_NAMES[0]}.gz" in warning
    assert f"into {tmp_path / 'data' / name}" in warning
    assert "data.when_unavailable: error" in warning


def test_with_error_nothing_stands_in() -> None:
    with pytest.raises(DataUnavailable, match="The data set mnist could not be had"):
        load("mnist", when_unavailable="error")


def test_nothing_stands_in_for_a_broken_file(tmp_path: Path) -> None:
    (tmp_path / "data" / "mnist").mkdir(parents=True)
    (tmp_path / "data" / "mnist" / FILE_NAMES[0]).write_bytes(b"")
    with pytest.raises(DataError, match="is empty"):
        load("mnist", when_unavailable="synthetic-digits")


def test_idx_and_arrays_take_the_path(tmp_path: Path) -> None:
    write_folder(tmp_path / "idx")
    from_idx, said, warned = load("idx", str(tmp_path / "idx"))
    arrays = {
        f"{name}_{what}": getattr(getattr(from_idx, name), what)
        for name in ("train", "test")
        for what in ("images", "labels")
    }
    np.savez(tmp_path / "arrays.npz", **arrays)
    from_arrays, _, _ = load("arrays", str(tmp_path / "arrays.npz"))
    assert (from_idx.name, from_arrays.name) == ("idx", "arrays")
    assert from_idx.digest == from_arrays.digest
    assert said == warned == []


def test_examples_that_were_in_memory_are_asked_for() -> None:
    with pytest.raises(DataError, match=r"were arrays of the Python program .* partrain\.open_run"):
        load("memory")


def test_importing_it_does_not_import_numba() -> None:
    program = "import sys, partrain.data.sources; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
