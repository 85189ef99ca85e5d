"""`partrain data show` and `partrain data pack`, on every kind of source."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from partrain.data.arrays import load_arrays
from tests.noise_data import noise_examples, write_idx_folder
from tests.program import Result, call_without_numba
from tests.small_run import write_small_config

Call = Callable[..., Result]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("partrain.data.image_directory_cache.user_cache_directory", lambda: tmp_path / "cache")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Ten training and four test images of two classes; one test image is also a training image."""
    images, _ = noise_examples(14, size=6)
    for index, image in enumerate(images):
        folder = tmp_path / "pictures" / ("train" if index < 10 else "test") / ("даже" if index % 2 else "odd one")
        folder.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(images[1] if index == 11 else image).save(folder / f"{index}.png")
    return tmp_path / "pictures"


def facts_of(result: Result) -> dict[str, object]:
    assert result.exit_code == 0, result.stderr
    facts: dict[str, object] = json.loads(result.stdout)
    return facts


def test_facts_of_pictures(call_partrain: Call, pictures: Path, tmp_path: Path) -> None:
    (pictures / "train/odd one/bad.png").write_text("x")
    size = ("--size", "6,5", "--channels", 1)
    result = call_partrain("data", "show", pictures, *size)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "odd one/bad.png: is not a PNG" in result.stderr
    result = call_partrain("data", "show", pictures, *size, "--on-broken", "skip")
    for fragment in (
        f"folder from {pictures}",
        "images uint8, 1 x 6 x 5",
        "unusable image files, skipped: 1",
        "odd one",
        "даже",
        "balance: the most frequent class has",
        "images of test that also appear in train: 1, at index 2 (test/даже/11.png)",
    ):
        assert fragment in result.stdout
    assert not list(tmp_path.glob("*.png")), "a sheet is drawn only where --sheet says"
    facts = facts_of(
        call_partrain("data", "show", pictures, *size, "--on-broken", "skip", "--json", "--sheet", "s.png")
    )
    assert facts["classes"] == ["odd one", "даже"]
    assert facts["skipped"] == 1
    duplicates = {"of": "test", "in": "train", "count": 1, "first": [2], "files": ["test/даже/11.png"]}
    assert facts["duplicates"][-2] == duplicates  # type: ignore[index]
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("to", ["packed.npz", "packed", "new/packed.npz"])
def test_pack_of_any_source_is_the_same_data_set(call_partrain: Call, pictures: Path, tmp_path: Path, to: str) -> None:
    config = write_small_config(tmp_path, {"data": {"name": "folder", "path": str(pictures), "size": 6}})
    sources = [(pictures, "--size", "6"), (config,)]
    digests = set()
    for source in sources:
        result = call_partrain("data", "pack", *source, "--to", to, "-q")
        assert (result.exit_code, result.stdout, result.stderr) == (0, f"{to}\n", "")
        dataset = load_arrays(to)
        digests.add((dataset.digest, dataset.class_names, dataset.num_validation))
        if to == "packed":
            for file in Path(to).iterdir():
                file.unlink()  # an empty folder is taken
    assert len(digests) == 1
    assert next(iter(digests))[1] == ("odd one", "даже")


def test_pack_has_the_division_of_its_source(call_partrain: Call, noise_folder: Path, tmp_path: Path) -> None:
    data = {"name": "idx", "path": str(noise_folder), "train_examples": 40, "validation_examples": 7}
    config = write_small_config(tmp_path, {"data": data})
    assert call_partrain("data", "pack", config, "--to", "x.npz", "-q").exit_code == 0
    facts = facts_of(call_partrain("data", "show", "x.npz", "--json", "-q"))
    assert facts["examples"] == {"train": 40, "validation": 7, "test": 20}


def test_packs_of_the_same_data_are_the_same_bytes(call_partrain: Call, noise_folder: Path, tmp_path: Path) -> None:
    contents = set()
    for _ in range(2):
        assert call_partrain("data", "pack", noise_folder, "--to", "x.npz").exit_code == 0
        contents.add((tmp_path / "x.npz").read_bytes())
    assert len(contents) == 1
    with np.load("x.npz") as arrays, zipfile.ZipFile("x.npz") as archive:
        assert arrays["train_images"].shape == (60, 1, 28, 28)
        assert archive.testzip() is None


def test_showing_files_needs_no_numba(noise_folder: Path) -> None:
    assert call_without_numba("data", "show", noise_folder, "-q") == 0
    assert call_without_numba("data", "pack", noise_folder, "--to", "x.npz") == 0


def test_images_of_any_kind_are_drawn(call_partrain: Call, tmp_path: Path) -> None:
    images = np.random.default_rng(0).normal(size=(70, 2, 9, 5)).astype(np.float32)
    arrays = {
        "train_images": images,
        "train_labels": np.arange(70),
        "test_images": images[:3],
        "test_labels": [0, 1, 2],
    }
    np.savez("x.npz", **arrays)
    result = call_partrain("data", "show", "x.npz", "--sheet", "arrays-examples.png")
    assert "… and 10 more classes" in result.stdout
    assert "balance: a class has no training examples" in result.stdout  # the last sixth is for validation
    assert (tmp_path / "arrays-examples.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "minst"), "there is no such data set, and no such file or directory; did you mean mnist?"),
        (("show", "nothing/here"), "the data sets are mnist, fashion-mnist, cifar-10, synthetic-digits"),
        (("show", "pictures"), "give the size to resize them to, e.g. --size 32,32"),
        (("show", "noise", "--size", "3"), "noise: is idx; --size, --channels and --on-broken are for images"),
        (("show", "noise", "--sheet", "no/sheet.png"), "no/sheet.png: cannot be written"),
        (("show", "small.yaml", "--channels", "1"), "data.channels goes with data.name folder"),
        (("pack", "noise", "--to", "noise"), "noise: exists already"),
        (("pack", "noise", "--to", "small.yaml"), "small.yaml: exists already"),
        (("pack", "noise", "--to", "/proc/x.npz"), "/proc/x.npz: cannot be written"),
        (("show", "noise", "--size", "0"), "'0' is not a whole number"),
    ],
)
def test_what_cannot_be_shown_or_packed_is_one_message(
    call_partrain: Call, pictures: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    write_idx_folder(tmp_path / "noise", noise_examples(60), noise_examples(20, seed=1))
    write_small_config(tmp_path)
    result = call_partrain("data", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("compressed", [False, True])
def test_idx_files_with_a_dot_in_their_names_are_idx_files(
    call_partrain: Call, noise_folder: Path, compressed: bool
) -> None:
    for path in noise_folder.iterdir():
        content = path.read_bytes()
        path.unlink()
        name = path.name.removesuffix(".gz").replace("-idx", ".idx")
        (noise_folder / f"{name}.gz" if compressed else noise_folder / name).write_bytes(
            gzip.compress(content) if compressed else content
        )
    facts = facts_of(call_partrain("data", "show", noise_folder, "--json", "-q", "--sheet", "s.png"))
    assert (facts["name"], facts["shape"]) == ("idx", [1, 28, 28])
    assert call_partrain("data", "pack", noise_folder, "--to", "x.npz", "-q").exit_code == 0


def test_layout_of_arrays_can_be_given(call_partrain: Call, noise_folder: Path) -> None:
    images, labels = noise_examples(40, size=6)
    images = np.stack([images] * 3, axis=3)
    np.savez("last.npz", x_train=images[:30], y_train=labels[:30], x_test=images[30:], y_test=labels[30:])
    refused = call_partrain("data", "show", "last.npz")
    assert "data show and data pack --layout channels_last" in refused.stderr
    layout = ("--layout", "channels_last")
    assert call_partrain("data", "pack", "last.npz", "--to", "first.npz", "-q", *layout).exit_code == 0
    facts = [
        facts_of(call_partrain("data", "show", source, "--json", "-q", "--sheet", "s.png", *more))
        for source, more in (("last.npz", layout), ("first.npz", ()))
    ]
    assert facts[0]["shape"] == facts[1]["shape"] == [3, 6, 6]
    assert facts[0]["counts"] == facts[1]["counts"]
    wrong = call_partrain("data", "show", noise_folder, *layout)
    assert "is idx; --layout is for arrays" in wrong.stderr
