"""Contract C4 for data: one message, nothing starts, nothing is left in runs/."""

from __future__ import annotations

import dataclasses
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from partrain.data import catalog
from tests.noise_data import noise_examples, write_idx, write_idx_folder

Refuse = Callable[..., str]


def replace(folder: Path, name: str, content: bytes) -> None:
    (folder / name).unlink()
    (folder / name).write_bytes(content)


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def break_truncated_gzip(folder: Path) -> str:
    content = gzip.compress((folder / IMAGES).read_bytes())
    (folder / IMAGES).unlink()
    (folder / f"{IMAGES}.gz").write_bytes(content[: len(content) // 2])
    return "is truncated"


def break_gzip(folder: Path) -> str:
    content = bytearray(gzip.compress((folder / IMAGES).read_bytes()))
    content[len(content) // 2] ^= 255
    replace(folder, IMAGES, bytes(content))
    return IMAGES


def break_magic(folder: Path) -> str:
    content = (folder / IMAGES).read_bytes()
    replace(folder, IMAGES, b"\x01\x02\x03\x04" + content[4:])
    return "begins with 0x01020304"


def break_length(folder: Path) -> str:
    replace(folder, IMAGES, (folder / IMAGES).read_bytes()[:-1])
    return "header announces"


def break_end(folder: Path) -> str:
    replace(folder, IMAGES, (folder / IMAGES).read_bytes() + b"x")
    return "has more data than"


def break_size(folder: Path) -> str:
    replace(folder, IMAGES, bytes((0, 0, 8, 3)) + b"\xff" * 12)
    return "limit"


def break_counts(folder: Path) -> str:
    write_idx(folder / LABELS, noise_examples(59)[1])
    return "60 images"


def break_by_emptying(folder: Path) -> str:
    replace(folder, IMAGES, b"")
    return "is empty"


def break_by_removing(folder: Path) -> str:
    (folder / IMAGES).unlink()
    return f"contains no {IMAGES}"


def break_by_swapping(folder: Path) -> str:
    replace(folder, IMAGES, (folder / LABELS).read_bytes())
    return "swapped"


def break_test_size(folder: Path) -> str:
    write_idx(folder / "t10k-images-idx3-ubyte", noise_examples(20, size=14)[0])
    return "Give both the same"


@pytest.mark.parametrize(
    "damage",
    [
        break_truncated_gzip,
        break_gzip,
        break_magic,
        break_length,
        break_end,
        break_size,
        break_counts,
        break_by_emptying,
        break_by_removing,
        break_by_swapping,
        break_test_size,
    ],
)
def test_a_damaged_file(
    refuse: Refuse, small_config: Callable[..., Path], noise_folder: Path, damage: Callable[[Path], str]
) -> None:
    expected = damage(noise_folder)
    message = refuse("--config", small_config({"data": {"name": "idx", "path": str(noise_folder)}}))
    assert expected in message
    assert str(noise_folder) in message


def test_a_missing_directory_of_data(refuse: Refuse, small_config: Callable[..., Path], tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    assert missing in refuse("--config", small_config({"data": {"name": "idx", "path": missing}}))
    assert missing in refuse("--config", small_config({"data": {"name": "arrays", "path": missing}}))
    assert "data.path" in refuse("--config", small_config({"data": {"name": "idx"}}))


def test_a_label_without_an_output(refuse: Refuse, small_config: Callable[..., Path], noise_folder: Path) -> None:
    write_idx(noise_folder / LABELS, np.full(60, 10, np.uint8))
    message = refuse("--config", small_config({"data": {"name": "idx", "path": str(noise_folder)}}))
    assert "(dense1)" in message
    assert "11 classes" in message


def test_more_examples_than_the_data_set_has(
    refuse: Refuse, small_config: Callable[..., Path], noise_folder: Path
) -> None:
    data = {"name": "idx", "path": str(noise_folder), "train_examples": 50, "validation_examples": 11}
    message = refuse("--config", small_config({"data": data}))
    assert "data.train_examples" in message
    assert "60" in message


@pytest.fixture
def _no_mirror(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    entry = dataclasses.replace(catalog.CATALOG["mnist"], mirrors=(), system_directories=())
    monkeypatch.setitem(catalog.CATALOG, "mnist", entry)
    monkeypatch.setenv("PARTRAIN_DATA_DIR", str(tmp_path / "data"))


@pytest.mark.usefixtures("_no_mirror")
@pytest.mark.parametrize("when_unavailable", ["error", "synthetic-digits"])
def test_a_wrong_digest_is_always_an_error(
    refuse: Refuse, small_config: Callable[..., Path], tmp_path: Path, when_unavailable: str
) -> None:
    folder = write_idx_folder(tmp_path / "data/mnist", noise_examples(60), noise_examples(20))
    data = {"name": "mnist", "when_unavailable": when_unavailable}
    message = refuse("--config", small_config({"data": data}))
    assert str(folder / IMAGES) in message
    assert "SHA-256" in message


@pytest.mark.usefixtures("_no_mirror")
def test_a_data_set_that_is_unavailable(refuse: Refuse, small_config: Callable[..., Path], tmp_path: Path) -> None:
    message = refuse("--config", small_config({"data": {"name": "mnist", "when_unavailable": "error"}}))
    assert "is not available" in message
    assert str(tmp_path / "data/mnist") in message


def archive(path: Path, **changes: Any) -> Path:
    arrays: dict[str, Any] = {}
    for split, n in (("train", 60), ("test", 20)):
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = noise_examples(n)
    arrays |= changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


@pytest.mark.parametrize(
    ("changes", "fragments"),
    [
        ({"train_images": np.array([{}] * 60)}, ["train_images", "Python objects"]),
        ({"train_labels": None}, ["train_labels"]),
        ({"train_labels": np.zeros(59, int)}, ["60 images", "59 labels"]),
        ({"train_labels": np.full(60, -1)}, ["train_labels", "-1"]),
        ({"train_labels": np.zeros(60)}, ["train_labels", "float64"]),
        ({"train_images": np.full((60, 28, 28), 0.1)}, ["train_images", "float64"]),
        ({"train_images": np.full((60, 28, 28), np.nan, np.float32)}, ["train_images", "nan"]),
        ({"train_images": np.zeros((60, 784), np.uint8)}, ["train_images", "(60, 784)"]),
    ],
)
def test_unusable_arrays(
    refuse: Refuse,
    small_config: Callable[..., Path],
    tmp_path: Path,
    changes: dict[str, Any],
    fragments: list[str],
) -> None:
    path = archive(tmp_path / "data.npz", **changes)
    message = refuse("--config", small_config({"data": {"name": "arrays", "path": str(path)}}))
    assert all(fragment in message for fragment in [str(path), *fragments]), message


def test_a_truncated_archive(refuse: Refuse, small_config: Callable[..., Path], tmp_path: Path) -> None:
    path = archive(tmp_path / "data.npz")
    path.write_bytes(path.read_bytes()[:1000])
    assert str(path) in refuse("--config", small_config({"data": {"name": "arrays", "path": str(path)}}))
