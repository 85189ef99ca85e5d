"""Directories of splits and directories of classes are told apart, or the user is told that they cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from partrain.data.image_directory import ImageDirectory, list_images
from partrain.errors import DataError


def write(root: Path, *directories: str, count: int = 4, subdirectory: str = "") -> None:
    """Write images into each of these directories; nothing here opens one."""
    for directory in directories:
        path = root / directory / subdirectory
        path.mkdir(parents=True)
        for k in range(count):
            (path / f"{k}.png").write_bytes(b"x")


def sizes(directory: ImageDirectory) -> dict[str, int]:
    return {str(split): len(images) for split, images in directory.splits.items()}


def failure(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        list_images(root)
    return str(caught.value)


@pytest.mark.parametrize("other", ["sample", "extra/cats", "annotations/deep/er"])
@pytest.mark.parametrize("splits", [("train", "test"), ("train",), ("Training_Set", "val"), ("seg_train", "seg_test")])
def test_directory_beside_those_of_splits_is_named(tmp_path: Path, splits: tuple[str, ...], other: str) -> None:
    write(tmp_path, *(f"{split}/{name}" for split in splits for name in ("cats", "dogs")), other)
    message = failure(tmp_path)
    assert f"{tmp_path / other.split('/')[0]}: its name is not that of a split" in message
    assert all(split in message for split in splits)


def test_directory_beside_those_of_splits_is_named_even_if_it_is_empty(tmp_path: Path) -> None:
    write(tmp_path, "train/cats", "train/dogs", "test/cats", "test/dogs")
    (tmp_path / "empty").mkdir()
    assert failure(tmp_path) == (
        f"{tmp_path / 'empty'}: its name is not that of a split, but other directories of {tmp_path} are splits: "
        "test, train. Move it to another place. If all of them are classes, rename test, train."
    )


@pytest.mark.parametrize(
    "names",
    [
        ("training_set", "validation-set", "test_set"),
        ("Training Images", "valid", "Testing"),
        ("trainset", "val", "testset"),
        ("seg_train", "seg_val", "seg_test"),
        ("2024-train", "2024-validation", "2024-test"),
    ],
)
def test_names_of_splits_are_understood_and_the_user_is_told(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name, count in zip(names, (8, 3, 2), strict=True):
        write(tmp_path, f"{name}/cats", f"{name}/dogs", count=count)
    directory = list_images(tmp_path)
    assert directory.class_names == ("cats", "dogs")
    assert sizes(directory) == {"train": 16, "validation": 6, "test": 4}
    (note,) = directory.notes
    for name, split in zip(names, ("train", "validation", "test"), strict=True):
        assert f"{name} is read as {split}" in note


def test_plain_names_of_splits_need_no_note(tmp_path: Path) -> None:
    write(tmp_path, *(f"{split}/{name}" for split in ("train", "validation", "test") for name in ("a", "b")))
    assert list_images(tmp_path).notes == ()


def test_class_named_like_a_split_is_one_if_its_images_lie_in_it_and_the_user_is_told(tmp_path: Path) -> None:
    write(tmp_path, "bus", "train", "test", count=30)
    directory = list_images(tmp_path)
    assert directory.class_names == ("bus", "test", "train")
    assert directory.notes == (
        "test is read as a class, not as a split",
        "train is read as a class, not as a split",
    )


def test_classes_whose_names_contain_the_word_of_a_split_are_classes(tmp_path: Path) -> None:
    write(tmp_path, "train_station", "test_tube", "harbour", count=30)
    assert list_images(tmp_path).class_names == ("harbour", "test_tube", "train_station")


def test_splits_without_training_images_are_an_error(tmp_path: Path) -> None:
    write(tmp_path, "val/cats", "val/dogs", "test/cats", "test/dogs")
    assert "test, val are read as splits, but there is no directory `train`" in failure(tmp_path)


def test_images_of_a_split_that_are_in_no_class_are_an_error(tmp_path: Path) -> None:
    write(tmp_path, "train/cats", "train/dogs", "test")
    assert f"{tmp_path / 'test'}: contains images, but no directories of classes" in failure(tmp_path)


def test_split_inside_a_split_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, "seg_train/seg_train/sea", "seg_train/seg_train/ice", "seg_test/seg_test/sea")
    assert "seg_test/seg_test: is a directory of a split inside that of a split" in failure(tmp_path)


def test_splits_below_the_classes_are_not_understood_and_the_user_is_told(tmp_path: Path) -> None:
    write(tmp_path, *(f"{name}/{split}" for name in ("cats", "dogs") for split in ("train", "test")), count=30)
    directory = list_images(tmp_path)
    assert directory.class_names == ("cats", "dogs")
    assert "cats/test, cats/train are not read as splits" in directory.notes[0]
