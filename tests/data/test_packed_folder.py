from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from partrain.data import packed_folder
from partrain.data.arrays import load_arrays
from partrain.data.dataset import Dataset
from partrain.data.packed_folder import load_picture_folder
from partrain.data.picture_folder import list_pictures
from partrain.data.pictures import decode_picture
from partrain.errors import DataError, ResourceError
from partrain.system.cache_directories import cache_home
from tests.picture_tree import CLASS_NAMES, write_pictures
from tests.program import ROOT


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 good pictures and three broken ones; not to be changed."""
    return write_pictures(tmp_path_factory.mktemp("pictures") / "in", 120, num_broken=3)


@pytest.fixture
def own_pictures(pictures: Path, tmp_path: Path) -> Path:
    """A copy that may be changed, without the broken ones."""
    shutil.copytree(pictures, tmp_path / "own", ignore=shutil.ignore_patterns("broken*"))
    return tmp_path / "own"


def load(path: Path, on_broken: str = "skip", **changes: Any) -> tuple[Dataset, list[str], list[str]]:
    said: list[str] = []
    warned: list[str] = []
    options: dict[str, Any] = {"size": (20, 24), "channels": 3, "num_decoders": 2} | changes
    dataset = load_picture_folder(path, on_broken=on_broken, say=said.append, warn=warned.append, **options)
    return dataset, said, warned


def packs() -> list[str]:
    return sorted(path.name for path in (cache_home() / "packed").iterdir() if path.suffix != ".lock")


def test_pictures_become_arrays_in_the_order_of_their_names(pictures: Path) -> None:
    dataset, said, warned = load(pictures)
    assert said == [f"decoding 123 pictures of {pictures}, the first time only"]
    assert (dataset.name, dataset.source) == ("folder", str(pictures))
    assert dataset.class_names == tuple(sorted(CLASS_NAMES))
    splits = list_pictures(pictures).splits
    good = {split: [p for p in ps if "broken" not in p.name] for split, ps in splits.items()}
    assert dataset.num_validation == len(good["validation"])
    for split, expected in ((dataset.train, good["train"] + good["validation"]), (dataset.test, good["test"])):
        assert split.images.shape == (len(expected), 3, 20, 24)
        assert [dataset.class_names[label] for label in split.labels] == [p.class_name for p in expected]
        for image, picture in zip(split.images, expected, strict=True):
            np.testing.assert_array_equal(image, decode_picture(picture.path, (3, 20, 24)))
    assert sorted(dataset.skipped) == sorted(f"{CLASS_NAMES[k]}/broken {k}.png" for k in range(3))
    assert "3 pictures that cannot be used left out:" in warned[0]


def test_broken_pictures_are_an_error_that_names_them_unless_they_are_skipped(pictures: Path) -> None:
    for _ in range(2):  # also where the cache has the others
        with pytest.raises(DataError) as caught:
            load(pictures, "error")
        message = str(caught.value)
        assert "3 pictures cannot be used. Replace them, or leave them out with `data.on_broken: skip`:" in message
        for k in range(3):
            assert f"{CLASS_NAMES[k]}/broken {k}.png: is no PNG, JPEG, BMP or WebP picture." in message or k == 2
    assert load(pictures)[0].skipped


def test_folder_is_decoded_once_and_again_when_something_changed(own_pictures: Path) -> None:
    first, said, _ = load(own_pictures)
    assert said
    again, said, _ = load(own_pictures)
    assert said == []
    assert again.digest == first.digest
    victim = next((own_pictures / CLASS_NAMES[1]).iterdir())
    PIL.Image.new("L", (9, 9), 77).save(victim)
    changed, said, _ = load(own_pictures)
    assert said
    assert changed.digest != first.digest
    assert load(own_pictures, channels=1)[0].train.images.shape[1:] == (1, 20, 24)
    assert load(own_pictures, size=(8, 9))[0].train.images.shape[1:] == (3, 8, 9)


def test_folder_that_was_moved_is_not_decoded_again(own_pictures: Path, tmp_path: Path) -> None:
    digest = load(own_pictures)[0].digest
    own_pictures.rename(tmp_path / "moved")
    dataset, said, _ = load(tmp_path / "moved")
    assert (dataset.digest, said) == (digest, [])
    assert dataset.source == str(tmp_path / "moved")


def test_number_of_decoders_changes_nothing(own_pictures: Path) -> None:
    digests = set()
    for num_decoders in (1, 5):
        digests.add(load(own_pictures, num_decoders=num_decoders)[0].digest)
        shutil.rmtree(cache_home())
    assert len(digests) == 1


@pytest.mark.parametrize("damage", ["images", "labels", "index", "file"])
def test_damaged_pack_is_made_anew(own_pictures: Path, damage: str) -> None:
    digest = load(own_pictures)[0].digest
    (name,) = packs()
    pack = cache_home() / "packed" / name
    if damage == "index":
        (pack / "pack.json").write_text("{")
    elif damage == "file":
        (pack / "test_images.npy").unlink()
    else:
        with open(pack / f"train_{damage}.npy", "r+b") as file:
            file.seek(-8, os.SEEK_END)
            file.write(b"\1")
    dataset, said, warned = load(own_pictures)
    assert dataset.digest == digest
    assert said
    assert len(warned) == 1
    assert "are damaged" in warned[0]


def test_two_processes_that_pack_the_same_folder_both_have_it(own_pictures: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from partrain.data.packed_folder import load_picture_folder; "
        "print(load_picture_folder(sys.argv[1], (20, 24), 3, 'error', num_decoders=1, say=print, warn=print).digest)"
    )
    command = [sys.executable, "-c", program, str(own_pictures)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate(timeout=60)[0].splitlines() for process in processes]
    assert {lines[-1] for lines in said} == {load(own_pictures)[0].digest}
    assert len([line for lines in said for line in lines if line.startswith("decoding")]) == 1
    assert len(packs()) == 1


def test_what_is_interrupted_leaves_no_pack(own_pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 0

    def interrupt(path: Path, shape: tuple[int, ...]) -> Any:
        nonlocal count
        count += 1
        if count == 30:
            raise KeyboardInterrupt
        return decode_picture(path, shape)

    monkeypatch.setattr(packed_folder, "decode_picture", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load(own_pictures)
    assert packs() == []


def test_what_a_killed_process_left_is_swept_away(own_pictures: Path) -> None:
    load(own_pictures)
    (name,) = packs()
    pack = cache_home() / "packed" / name
    pack.rename(pack.with_name(f"{name}.abc.part"))
    load(own_pictures)
    assert packs() == [name]


def test_cache_that_cannot_be_written_is_named(own_pictures: Path, cache: Path) -> None:
    cache.write_text("a file")
    with pytest.raises(ResourceError, match="XDG_CACHE_HOME"):
        load(own_pictures)


def test_nothing_that_can_be_used(own_pictures: Path) -> None:
    for picture in own_pictures.glob("*/*.*"):
        picture.write_bytes(b"x")
    with pytest.raises(DataError, match="none of the pictures for train can be used"):
        load(own_pictures)


def test_pack_is_arrays_as_anyone_can_load_them(own_pictures: Path) -> None:
    dataset, _, _ = load(own_pictures)
    arrays = load_arrays(cache_home() / "packed" / packs()[0])
    assert (arrays.digest, arrays.class_names, arrays.num_validation) == (
        dataset.digest,
        dataset.class_names,
        dataset.num_validation,
    )
