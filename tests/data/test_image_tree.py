"""Files that are no images are counted by their suffixes, and the user is told."""

from __future__ import annotations

from pathlib import Path

from partrain.data.image_directory import list_images
from partrain.data.image_tree import describe_ignored


def write(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_every_suffix_of_an_image_is_accepted(tmp_path: Path) -> None:
    suffixes = ("png", "jpg", "jpeg", "JFIF", "bmp", "webp", "gif", "tif", "TIFF")
    write(tmp_path, *(f"{name}/{k}.{suffix}" for name in "ab" for k in range(9) for suffix in suffixes))
    directory = list_images(tmp_path)
    assert directory.size == 2 * 9 * len(suffixes)
    assert not directory.ignored


def test_other_files_are_counted_by_suffix_wherever_they_lie(tmp_path: Path) -> None:
    write(tmp_path, *(f"{split}/{name}/{k}.png" for split in ("train", "test") for name in "ab" for k in range(4)))
    write(tmp_path, "train/a/1.HEIC", "train/a/deep/2.heic", "test/b/x.svg", "README", "labels.csv", "train/labels.csv")
    write(tmp_path, "test/lost.png", ".hidden", "train/a/._1.png")
    assert dict(list_images(tmp_path).ignored) == {
        ".heic": 2,
        ".svg": 1,
        ".csv": 2,
        "without a suffix": 1,
        ".png outside the directories of classes": 1,
    }


def test_files_beside_the_directories_of_classes_are_counted_once(tmp_path: Path) -> None:
    write(tmp_path, *(f"{name}/{k}.png" for name in "ab" for k in range(30)), "top.png", "notes.txt")
    assert dict(list_images(tmp_path).ignored) == {".png outside the directories of classes": 1, ".txt": 1}


def test_description_names_the_most_frequent_suffixes() -> None:
    assert describe_ignored({".txt": 1}) == "1 file is not used: 1 .txt"
    assert describe_ignored({".txt": 3, ".heic": 1200}) == "1,203 files are not used: 1,200 .heic, 3 .txt"
    many = {f".{k:02}": 1 for k in range(12)}
    assert describe_ignored(many).endswith("1 .06, 1 .07, and those of 4 more suffixes")
