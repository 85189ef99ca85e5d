from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from partrain.data.image_directory import ImageDirectory, hash_of_name, list_images, split_by_name
from partrain.errors import DataError


def write(root: Path, *names: str) -> Path:
    """Make files; nothing here opens one."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def many(count: int = 60, classes: tuple[str, ...] = ("a", "b")) -> list[str]:
    return [f"{classes[k % len(classes)]}/{k}.png" for k in range(count)]


def names_of(directory: ImageDirectory) -> dict[str, set[str]]:
    return {split: {image.name for image in images} for split, images in directory.splits.items()}


def failure(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        list_images(root)
    return str(caught.value)


def test_classes_and_images_are_sorted_by_code_points_whatever_the_disk_says(tmp_path: Path) -> None:
    write(tmp_path, *many(40, ("ж", "Z", "a", "10", "9")), "a/B.png", "a/a.png", "a/deep/c.JPG")
    directory = list_images(tmp_path)
    assert directory.class_names == ("10", "9", "Z", "a", "ж")
    for images in directory.splits.values():
        assert [image.name for image in images] == sorted(image.name for image in images)
    assert "a/deep/c.JPG" in {image.name for images in directory.splits.values() for image in images}


def test_only_images_that_can_be_seen_count(tmp_path: Path) -> None:
    write(tmp_path, *many(), "a/notes.txt", "a/.hidden.png", ".git/x/1.png", "top.png")
    assert list_images(tmp_path).size == 60


def test_split_is_by_the_name_and_a_new_file_moves_no_other(tmp_path: Path) -> None:
    before = names_of(list_images(write(tmp_path, *many(200))))
    after = names_of(list_images(write(tmp_path, *many(300))))
    assert all(before[split] <= after[split] for split in before)
    assert 15 < len(after["test"]) < 50
    assert 15 < len(after["validation"]) < 50
    assert {name for names in after.values() for name in names} == set(many(300))
    assert all(split_by_name(name) == split for split, names in after.items() for name in names)


def test_hash_of_a_name_stays_what_it_is() -> None:
    """Another hash would move examples of data sets that exist between training and test."""
    assert hash_of_name("cat/1.png") == pytest.approx(0.41497065, abs=1e-8)


@pytest.mark.parametrize(
    "names", [("train", "validation", "test"), ("training", "val", "testing"), ("Train", "valid", "test")]
)
def test_directories_of_splits_are_taken_as_they_are(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name, count in zip(names, (6, 4, 2), strict=True):
        write(tmp_path / name, *many(count))
    directory = list_images(tmp_path)
    assert {split: len(images) for split, images in directory.splits.items()} == {
        "train": 6,
        "validation": 4,
        "test": 2,
    }
    assert directory.class_names == ("a", "b")


def test_what_has_no_directory_is_taken_out_of_train(tmp_path: Path) -> None:
    write(tmp_path / "train", *many(100))
    write(tmp_path / "test", *many(4))
    names = names_of(list_images(tmp_path))
    assert names["validation"] == {name for name in many(100) if split_by_name(name) == "validation"}
    assert len(names["train"]) + len(names["validation"]) == 100
    assert len(names["test"]) == 4


def test_a_class_may_be_called_like_a_split(tmp_path: Path) -> None:
    assert list_images(write(tmp_path, *many(60, ("test", "train", "bus")))).class_names == ("bus", "test", "train")


def test_composed_and_decomposed_accents_are_one_class(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        write(tmp_path, *(unicodedata.normalize(form, f"é/{form} {k}.png") for k in range(20)))
    write(tmp_path, *many(20, ("a",)))
    directory = list_images(tmp_path)
    assert directory.class_names == ("a", "é")
    assert directory.size == 60


def test_fingerprint_changes_with_name_size_and_time(tmp_path: Path) -> None:
    write(tmp_path, *many())
    fingerprints = {list_images(tmp_path).fingerprint()}
    os.utime(tmp_path / "a/0.png", ns=(0, 1))
    fingerprints.add(list_images(tmp_path).fingerprint())
    (tmp_path / "a/0.png").write_bytes(b"xy")
    os.utime(tmp_path / "a/0.png", ns=(0, 1))
    fingerprints.add(list_images(tmp_path).fingerprint())
    (tmp_path / "a/2.png").rename(tmp_path / "a/other.png")
    fingerprints.add(list_images(tmp_path).fingerprint())
    assert len(fingerprints) == 4


def test_directory_that_is_none(tmp_path: Path) -> None:
    assert "No such file" in failure(tmp_path / "missing")
    write(tmp_path, "file")
    assert "is a file, expected a directory" in failure(tmp_path / "file")


def test_directory_with_too_little(tmp_path: Path) -> None:
    assert "contains no subdirectories" in failure(tmp_path)
    write(tmp_path, *many(60, ("only",)))
    assert "contains one class, only" in failure(tmp_path)
    (tmp_path / "empty").mkdir()
    assert "there are no images (.png, .jpg, .jpeg, .jfif, .bmp, .webp, .gif, .tif, .tiff) of empty" in failure(
        tmp_path
    )


def test_split_that_would_be_empty(tmp_path: Path) -> None:
    names = [name for name in many(60) if split_by_name(name) == "train"]
    assert "there is no test image (about a tenth" in failure(write(tmp_path, *names))


@pytest.mark.parametrize("target", ["folder", "file", "nothing"])
def test_link_out_of_the_folder(tmp_path: Path, target: str) -> None:
    root = write(tmp_path / "root", *many())
    write(tmp_path / "outside", "directory/1.png", "file")
    (root / "a/link.png").symlink_to(tmp_path / "outside" / target)
    message = failure(root)
    assert f"{root}/a/link.png: is a symbolic link out of {root}" in message


def test_class_that_is_a_link_out_of_the_folder(tmp_path: Path) -> None:
    root = write(tmp_path / "root", *many())
    write(tmp_path / "outside", "1.png")
    (root / "c").symlink_to(tmp_path / "outside")
    assert f"{root}/c: is a symbolic link out of {root}" in failure(root)


def test_links_inside(tmp_path: Path) -> None:
    root = write(tmp_path, *many())
    (root / "b/again.png").symlink_to(root / "a/0.png")
    assert list_images(root).size == 61
    (root / "b/loop").symlink_to(root / "b")
    assert "is a symbolic link to a directory" in failure(root)
    (root / "b/loop").unlink()
    (root / "b/none.png").symlink_to(root / "a/none.png")
    assert "is a symbolic link to nothing" in failure(root)


def test_pipe_that_is_called_like_a_image(tmp_path: Path) -> None:
    write(tmp_path, *many())
    os.mkfifo(tmp_path / "a/pipe.png")
    assert "is named like an image, but is not a file" in failure(tmp_path)


def test_name_that_is_no_text(tmp_path: Path) -> None:
    write(tmp_path, *many())
    os.mkdir(os.fsencode(tmp_path) + b"/\xff")
    message = failure(tmp_path)
    assert "its name is not UTF-8" in message
    message.encode()  # can be printed


def test_directory_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(directory: Path) -> None:
        raise PermissionError(13, "Permission denied")

    write(tmp_path, *many())
    monkeypatch.setattr("os.scandir", refuse)
    assert failure(tmp_path) == f"{tmp_path}: cannot be read: Permission denied. Check the path and its permissions."
