"""A folder of pictures, a folder for each class: which picture is of which class, and for what it is used.

Classes lie in `path` itself, or in folders `train`, `validation` and `test` there. What has no folder of its own is
taken out of `train` (or out of all pictures) by a hash of each picture's name: so a picture that is added moves no
other one. Names are compared as text in Unicode's form NFC, since systems differ in how they store accents.
"""

from __future__ import annotations

import hashlib
import os
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from partrain.data.dataset import unreadable
from partrain.data.pictures import SUFFIXES
from partrain.errors import DataError
from partrain.system.terminal_text import printable

SPLITS = ("train", "validation", "test")
# What the folder of a split may be called.
_SPLIT_NAMES = {"train": "train", "training": "train", "test": "test", "testing": "test"} | dict.fromkeys(
    ("validation", "valid", "val"), "validation"
)
# Shares of the pictures that are taken out of `train`: those with a hash in these parts of [0, 1).
_TAKEN_OUT = {"test": (0.0, 0.1), "validation": (0.1, 0.2)}
# What a message lists of a longer list.
LISTED = 5


@dataclass(frozen=True)
class Picture:
    """A picture file.

    Attributes
    ----------
    path : where it is.
    name : its class and its name in there, e.g. "cat/on a roof.png", in NFC.
    class_name : its class.
    num_bytes, mtime_ns : size and time of the last change, by which a change is noticed.
    """

    path: Path
    name: str
    class_name: str
    num_bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class PictureFolder:
    """What is in a folder of pictures.

    Attributes
    ----------
    root : the folder, without symbolic links.
    class_names : sorted by code points.
    splits : the pictures of "train", "validation" and "test", sorted by class and name.
    """

    root: Path
    class_names: tuple[str, ...]
    splits: dict[str, list[Picture]]

    @property
    def size(self) -> int:
        """How many pictures there are."""
        return sum(map(len, self.splits.values()))

    def fingerprint(self) -> str:
        """Return a SHA-256 in hex over what each picture is for, its name, size and time of the last change."""
        digest = hashlib.sha256()
        for split, pictures in self.splits.items():
            for picture in pictures:
                line = f"{split}\0{picture.name}\0{picture.num_bytes}\0{picture.mtime_ns}\n"
                digest.update(line.encode(errors="surrogateescape"))
        return digest.hexdigest()


def list_pictures(path: str | Path) -> PictureFolder:
    """Find the pictures in a folder, without opening one.

    A picture is a file that is called like one (`.png`, `.jpg`, `.jpeg`, `.bmp`, `.webp`), at any depth below the
    folder of its class; names that begin with a dot are passed over.

    Raises
    ------
    DataError
        There is no such folder, or it cannot be read; a symbolic link leads out of it; there are fewer than two
        classes, or a class or a split that is needed is empty.
    """
    root = Path(os.path.expanduser(path))
    folders = _folders_in(_existing(root))
    layout = _layout(folders)
    found = {
        split: [picture for folder in folders_of_split for picture in _pictures_of_split(folder, root.resolve())]
        for split, folders_of_split in layout.items()
    }
    for split in ("test", "validation"):
        if split not in layout:
            found[split] = [p for p in found["train"] if _is_taken_out(p.name, split)]
    taken = {picture.path for split in SPLITS[1:] if split not in layout for picture in found[split]}
    found["train"] = [picture for picture in found["train"] if picture.path not in taken]
    splits = {split: sorted(found[split], key=_place_in_order) for split in SPLITS}
    class_names = tuple(sorted({name for folder in _class_folders(layout) for name in [_text(folder)]}))
    _require_enough(root, class_names, splits, taken_out=[split for split in SPLITS[1:] if split not in layout])
    return PictureFolder(root.resolve(), class_names, splits)


def hash_of_name(name: str) -> float:
    """Return a number from [0, 1) that depends on the name alone: the first 8 bytes of its SHA-256, over 2^64."""
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_by_name(name: str) -> str:
    """Return what an example is for where nothing says so: about 10 % test, 10 % validation, the rest train."""
    return next((split for split in _TAKEN_OUT if _is_taken_out(name, split)), "train")


def _is_taken_out(name: str, split: str) -> bool:
    low, high = _TAKEN_OUT[split]
    return low <= hash_of_name(name) < high


def _place_in_order(picture: Picture) -> tuple[str, str, bytes]:
    # The last decides between two names that are one in NFC.
    return picture.class_name, picture.name, os.fsencode(picture.path)


def _layout(folders: list[Path]) -> dict[str, list[Path]]:
    """Return the folders whose subfolders are classes, by split; for "train" alone the folders' common parent."""
    by_split: dict[str, list[Path]] = {}
    for folder in folders:
        by_split.setdefault(_SPLIT_NAMES.get(folder.name.lower(), ""), []).append(folder)
    if "train" in by_split and "" not in by_split:
        return by_split
    return {"train": [folders[0].parent]} if folders else {"train": []}


def _class_folders(layout: dict[str, list[Path]]) -> Iterator[Path]:
    for folders in layout.values():
        for folder in folders:
            yield from _folders_in(folder)


def _pictures_of_split(folder: Path, root: Path) -> Iterator[Picture]:
    for class_folder in _folders_in(folder):
        name = _text(class_folder)
        for path, status in _walk(class_folder, root):
            relative = unicodedata.normalize("NFC", path.relative_to(class_folder).as_posix())
            yield Picture(path, f"{name}/{relative}", name, status.st_size, status.st_mtime_ns)


def _walk(folder: Path, root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the pictures below a folder."""
    for entry in _entries(folder):
        path = Path(entry.path)
        is_picture = path.suffix.lower() in SUFFIXES
        if entry.is_symlink() and (is_picture or entry.is_dir()):
            _require_inside(path, root)
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(path, root)
        elif is_picture:
            try:
                status = path.stat()
            except OSError as error:
                raise unreadable(path, error) from None
            if not stat.S_ISREG(status.st_mode):
                raise DataError(f"{printable(str(path))}: is called like a picture, and is no file. Take it away.")
            yield path, status


def _require_inside(path: Path, root: Path) -> None:
    target = Path(os.path.realpath(path))
    if not target.is_relative_to(root):
        raise DataError(
            f"{printable(str(path))}: is a symbolic link out of {root}, to {printable(str(target))}. Links out of the "
            "folder are not followed: put the file itself there."
        )
    if not target.exists():
        raise DataError(f"{printable(str(path))}: is a symbolic link to nothing. Take it away.")
    if target.is_dir():
        raise DataError(
            f"{printable(str(path))}: is a symbolic link to a folder, in which pictures would be counted twice. "
            "Take it away, or put a folder there."
        )


def _folders_in(folder: Path) -> list[Path]:
    """Return the folders in a folder, sorted; a link to one is among them, where it does not lead out of it."""
    folders = []
    for entry in _entries(folder):
        if entry.is_symlink() and entry.is_dir():
            _require_inside(Path(entry.path), folder.resolve())
        if entry.is_dir():
            folders.append(Path(entry.path))
    return sorted(folders)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except (OSError, ValueError) as error:
        raise unreadable(folder, error) from None


def _existing(root: Path) -> Path:
    if root.exists() and not root.is_dir():
        raise DataError(f"{root}: is a file, expected a folder with a folder of pictures for each class.")
    return root


def _text(folder: Path) -> str:
    """Return a folder's name as text, in NFC.

    Raises
    ------
    DataError
        It is not UTF-8, and could not be written into a run.
    """
    try:
        folder.name.encode()
    except UnicodeEncodeError:
        raise DataError(f"{printable(str(folder))}: its name is not text in UTF-8. Rename the folder.") from None
    return unicodedata.normalize("NFC", folder.name)


def _require_enough(
    root: Path, class_names: tuple[str, ...], splits: dict[str, list[Picture]], taken_out: list[str]
) -> None:
    if not class_names:
        raise DataError(
            f"{root}: holds no folders. Put the pictures of each class into a folder that is called like the class."
        )
    if len(class_names) == 1:
        raise DataError(
            f"{root}: holds one class, {printable(class_names[0])}; a classifier needs two or more. Give the folder "
            "that holds a folder for each class."
        )
    there = {picture.class_name for pictures in splits.values() for picture in pictures}
    empty = [printable(name) for name in class_names if name not in there]
    if empty:
        more = f" and {len(empty) - LISTED} more" if len(empty) > LISTED else ""
        raise DataError(
            f"{root}: there are no pictures ({', '.join(SUFFIXES)}) of {', '.join(empty[:LISTED])}{more}. Put some "
            "there, or take the folder away."
        )
    for split in ("train", "test"):
        if not splits[split]:
            how = " (about a tenth of the pictures, by their names)" if split in taken_out else ""
            raise DataError(
                f"{root}: no picture is for {split}{how}. Add pictures, or divide them into folders train, "
                "validation and test yourself."
            )
