"""What another user could have put into a cache is not used."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from partrain.data.arrays import load_arrays
from partrain.data.dataset import Dataset
from partrain.data.file_fingerprint import take_fingerprint
from partrain.data.image_directory_cache import load_image_directory
from partrain.data.measurement_cache import MeasurementCache
from partrain.errors import ResourceError
from tests.image_tree import write_images

SOMEBODY = 65534


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of all caches."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "partrain"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images", 30)


def load(path: Path, said: list[str]) -> Dataset:
    return load_image_directory(path, (4, 4), 1, "error", num_decoders=1, say=said.append, warn=said.append)


def give_away(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(path, SOMEBODY, SOMEBODY)


CHANGES: dict[str, Callable[[Path], object]] = {
    "somebody else's pack": give_away,
    "somebody else's labels": lambda pack: give_away(pack / "train_labels.npy"),
    "somebody else's packs": lambda pack: give_away(pack.parent),
    "others can write to the pack": lambda pack: pack.chmod(0o777),
    "others can write to the labels": lambda pack: (pack / "train_labels.npy").chmod(0o666),
    "others can write to the caches": lambda pack: pack.parents[1].chmod(0o777),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_pack_with_shifted_labels_of_another_user_is_refused(
    images: Path, cache: Path, change: Callable[[Path], object]
) -> None:
    load(images, [])
    (pack,) = (path for path in (cache / "packed").iterdir() if path.is_dir())
    labels = np.load(pack / "train_labels.npy")
    np.save(pack / "train_labels.npy", np.roll(labels, 1))
    index = json.loads((pack / "pack.json").read_text())
    (pack / "pack.json").write_text(json.dumps(index | {"digest": load_arrays(pack).digest}))
    change(pack)
    with pytest.raises(ResourceError, match=r"other users may write to|belongs to another user") as refusal:
        load(images, [])
    assert "XDG_CACHE_HOME" in str(refusal.value)


def test_own_pack_is_used_whatever_the_umask(images: Path) -> None:
    old_umask = os.umask(0)
    try:
        digest = load(images, []).digest
    finally:
        os.umask(old_umask)
    said: list[str] = []
    assert load(images, said).digest == digest
    assert not [line for line in said if "decoding" in line]


def test_measurements_that_another_user_could_change_are_measured_anew(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "large").write_bytes(b"images")
    measurements = MeasurementCache([take_fingerprint(tmp_path / "large")])
    assert [measurements.get("mean", lambda value=value: value) for value in (1.5, 2.5)] == [1.5, 1.5]
    (file,) = (cache / "measured").iterdir()
    file.chmod(0o666)
    assert measurements.get("mean", lambda: 3.5) == 3.5  # written anew, for this user alone
    assert measurements.get("mean", lambda: 4.5) == 3.5
    file.parent.chmod(0o777)
    assert [measurements.get("mean", lambda value=value: value) for value in (5.5, 6.5)] == [5.5, 6.5]
