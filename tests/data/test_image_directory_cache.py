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

from partrain.data import image_directory_cache
from partrain.data.arrays import load_arrays
from partrain.data.dataset import Dataset
from partrain.data.image_decoding import decode_image
from partrain.data.image_directory import list_images
from partrain.data.image_directory_cache import load_image_directory
from partrain.errors import DataError, ResourceError
from partrain.system.cache_directories import user_cache_directory
from tests.image_tree import CLASS_NAMES, write_images
from tests.program import ROOT


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def image_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 good images and three broken ones; not to be changed."""
    return write_images(tmp_path_factory.mktemp("images") / "in", 120, num_broken=3)


@pytest.fixture
def own_images(image_directory: Path, tmp_path: Path) -> Path:
    """A copy that may be changed, without the broken ones."""
    shutil.copytree(image_directory, tmp_path / "own", ignore=shutil.ignore_patterns("broken*"))
    return tmp_path / "own"


def load(path: Path, on_broken: str = "skip", **changes: Any) -> tuple[Dataset, list[str], list[str]]:
    said: list[str] = []
    warned: list[str] = []
    options: dict[str, Any] = {"size": (20, 24), "channels": 3, "num_decoders": 2} | changes
    dataset = load_image_directory(path, on_broken=on_broken, say=said.append, warn=warned.append, **options)
    return dataset, said, warned


def note(path: Path) -> str:
    """What is said about the text file in the directory."""
    return f"{path}: 1 file is not used: 1 .txt"


def packs() -> list[str]:
    return sorted(path.name for path in (user_cache_directory() / "packed").iterdir() if path.suffix != ".lock")


def test_images_become_arrays_in_the_order_of_their_names(image_directory: Path) -> None:
    dataset, said, warned = load(image_directory)
    assert said == [note(image_directory), f"decoding 123 images of {image_directory}, the first time only"]
    assert (dataset.name, dataset.source) == ("folder", str(image_directory))
    assert dataset.class_names == tuple(sorted(CLASS_NAMES))
    splits = list_images(image_directory).splits
    good = {split: [p for p in ps if "broken" not in p.name] for split, ps in splits.items()}
    assert dataset.num_validation == len(good["validation"])
    for split, expected in ((dataset.train, good["train"] + good["validation"]), (dataset.test, good["test"])):
        assert split.images.shape == (len(expected), 3, 20, 24)
        assert [dataset.class_names[label] for label in split.labels] == [p.class_name for p in expected]
        for image, file in zip(split.images, expected, strict=True):
            np.testing.assert_array_equal(image, decode_image(file.path, (3, 20, 24)))
    assert sorted(dataset.skipped) == sorted(f"{CLASS_NAMES[k]}/broken {k}.png" for k in range(3))
    assert "left out 3 images that cannot be used:" in warned[0]


def test_broken_images_are_an_error_that_names_them_unless_they_are_skipped(image_directory: Path) -> None:
    for _ in range(2):  # also where the cache has the others
        with pytest.raises(DataError) as caught:
            load(image_directory, "error")
        message = str(caught.value)
        assert "3 images cannot be used. Replace them, or set `data.on_broken: skip` to leave them out:" in message
        for k in range(3):
            assert (
                f"{CLASS_NAMES[k]}/broken {k}.png: is not a PNG, JPEG, BMP, WebP, GIF or TIFF image." in message
                or k == 2
            )
    assert load(image_directory)[0].skipped


def test_folder_is_decoded_once_and_again_when_something_changed(own_images: Path) -> None:
    first, said, _ = load(own_images)
    assert said[1].startswith("decoding")
    again, said, _ = load(own_images)
    assert said == [note(own_images)]
    assert again.digest == first.digest
    victim = next((own_images / CLASS_NAMES[1]).iterdir())
    PIL.Image.new("L", (9, 9), 77).save(victim)
    changed, said, _ = load(own_images)
    assert said[1].startswith("decoding")
    assert changed.digest != first.digest
    assert load(own_images, channels=1)[0].train.images.shape[1:] == (1, 20, 24)
    assert load(own_images, size=(8, 9))[0].train.images.shape[1:] == (3, 8, 9)


def test_folder_that_was_moved_is_not_decoded_again(own_images: Path, tmp_path: Path) -> None:
    digest = load(own_images)[0].digest
    own_images.rename(tmp_path / "moved")
    dataset, said, _ = load(tmp_path / "moved")
    assert (dataset.digest, said) == (digest, [note(tmp_path / "moved")])
    assert dataset.source == str(tmp_path / "moved")


def test_number_of_decoders_changes_nothing(own_images: Path) -> None:
    digests = set()
    for num_decoders in (1, 5):
        digests.add(load(own_images, num_decoders=num_decoders)[0].digest)
        shutil.rmtree(user_cache_directory())
    assert len(digests) == 1


@pytest.mark.parametrize("damage", ["images", "labels", "index", "file"])
def test_damaged_pack_is_made_anew(own_images: Path, damage: str) -> None:
    digest = load(own_images)[0].digest
    (name,) = packs()
    pack = user_cache_directory() / "packed" / name
    if damage == "index":
        (pack / "pack.json").write_text("{")
    elif damage == "file":
        (pack / "test_images.npy").unlink()
    else:
        with open(pack / f"train_{damage}.npy", "r+b") as file:
            file.seek(-8, os.SEEK_END)
            file.write(b"\1")
    dataset, said, warned = load(own_images)
    assert dataset.digest == digest
    assert said[1].startswith("decoding")
    assert len(warned) == 1
    assert "are damaged" in warned[0]


def test_two_processes_that_pack_the_same_folder_both_have_it(own_images: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from partrain.data.image_directory_cache import load_image_directory; "
        "print(load_image_directory(sys.argv[1], (20, 24), 3, 'error', num_decoders=1, say=print, warn=print).digest)"
    )
    command = [sys.executable, "-c", program, str(own_images)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate(timeout=60)[0].splitlines() for process in processes]
    assert {lines[-1] for lines in said} == {load(own_images)[0].digest}
    assert len([line for lines in said for line in lines if line.startswith("decoding")]) == 1
    assert len(packs()) == 1


def test_what_is_interrupted_leaves_no_pack(own_images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 0

    def interrupt(path: Path, shape: tuple[int, ...]) -> Any:
        nonlocal count
        count += 1
        if count == 30:
            raise KeyboardInterrupt
        return decode_image(path, shape)

    monkeypatch.setattr(image_directory_cache, "decode_image", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load(own_images)
    assert packs() == []


def test_what_a_killed_process_left_is_swept_away(own_images: Path) -> None:
    load(own_images)
    (name,) = packs()
    pack = user_cache_directory() / "packed" / name
    pack.rename(pack.with_name(f"{name}.abc.part"))
    load(own_images)
    assert packs() == [name]


def test_cache_that_cannot_be_written_is_named(own_images: Path, cache: Path) -> None:
    cache.write_text("a file")
    with pytest.raises(ResourceError, match="XDG_CACHE_HOME"):
        load(own_images)


def test_nothing_that_can_be_used(own_images: Path) -> None:
    for path in own_images.glob("*/*.*"):
        path.write_bytes(b"x")
    with pytest.raises(DataError, match="none of the train images can be used"):
        load(own_images)


def test_pack_is_arrays_as_anyone_can_load_them(own_images: Path) -> None:
    dataset, _, _ = load(own_images)
    arrays = load_arrays(user_cache_directory() / "packed" / packs()[0])
    assert (arrays.digest, arrays.class_names, arrays.num_validation) == (
        dataset.digest,
        dataset.class_names,
        dataset.num_validation,
    )
