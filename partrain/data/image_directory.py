"""Lists a directory of images with one subdirectory per class, and assigns each image to a split.

The classes are subdirectories of the directory itself, or of its directories of splits (see `split_directories`). A
split that has no directory is taken out of `train` (or out of all images) by a hash of each image's name, so that an
added image moves no other one. The splits are not stratified: an exact tenth of each class would depend on the other
images of the class, and an added image would move them. So a small class may have no validation example; training says
so. Names are compared in Unicode's form NFC, because systems differ in how they store accents.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from partrain.data.image_decoding import SUFFIXES
from partrain.data.image_tree import entries_of, is_image, subdirectories, suffix_of, walk
from partrain.data.split_directories import Layout, recognise_layout
from partrain.data.split_name import SplitName
from partrain.errors import DataError
from partrain.system.terminal_text import printable

# A split without a directory gets the images of `train` whose hash lies in its part of [0, 1).
_HASH_RANGES = {SplitName.TEST: (0.0, 0.1), SplitName.VALIDATION: (0.1, 0.2)}
# A message names this many items of a longer list.
MAX_LISTED = 5


@dataclass(frozen=True)
class ImageFile:
    """An image file in a directory of images.

    Attributes
    ----------
    path : the file.
    name : the image's class and its path within the class, e.g. "cat/on a roof.png", in NFC.
    class_name : the image's class.
    file : the path of the file in the directory of images, as it is on the disk.
    num_bytes, mtime_ns : size and time of the last change; they reveal that a file was changed.
    """

    path: Path
    name: str
    class_name: str
    file: str
    num_bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class ImageDirectory:
    """The classes and images of a directory.

    Attributes
    ----------
    root : the directory, with symbolic links resolved.
    class_names : sorted by code points.
    splits : the images of each split, sorted by class and name.
    ignored : the number of files that are not used, by their suffix.
    notes : sentences that tell the user how the directory was understood.
    """

    root: Path
    class_names: tuple[str, ...]
    splits: dict[SplitName, list[ImageFile]]
    ignored: Counter[str]
    notes: tuple[str, ...]

    @property
    def size(self) -> int:
        """The number of images."""
        return sum(map(len, self.splits.values()))

    def fingerprint(self) -> str:
        """Return a SHA-256 in hex over the split, file, size and modification time of each image."""
        digest = hashlib.sha256()
        for split, images in self.splits.items():
            for image in images:
                line = f"{split}\0{image.file}\0{image.num_bytes}\0{image.mtime_ns}\n"
                digest.update(line.encode(errors="surrogateescape"))
        return digest.hexdigest()


def list_images(path: str | Path) -> ImageDirectory:
    """Find the images in a directory without opening them.

    An image is a file with one of the `SUFFIXES`, at any depth below the directory of its class.
    Hidden files and directories are ignored.

    Raises
    ------
    DataError
        The directory does not exist or cannot be read; a symbolic link leads out of it; splits and classes are mixed;
        there are fewer than two classes, or a class, the training split or the test split is empty.
    """
    root = Path(os.path.expanduser(path))
    if root.exists() and not root.is_dir():
        raise DataError(f"{root}: is a file, expected a directory with one subdirectory of images per class.")
    layout, ignored = recognise_layout(root), Counter[str]()
    found = {
        split: [image for directory in directories for image in _images_in(root, directory, ignored)]
        for split, directories in layout.parents.items()
    }
    if root not in layout.parents.get(SplitName.TRAIN, ()):
        ignored.update(_files_beside_directories(root))
    hashed = [split for split in (SplitName.VALIDATION, SplitName.TEST) if split not in layout.parents]
    for split in hashed:
        found[split] = [image for image in found[SplitName.TRAIN] if _hash_selects(image.name, split)]
    taken = {image.path for split in hashed for image in found[split]}
    found[SplitName.TRAIN] = [image for image in found[SplitName.TRAIN] if image.path not in taken]
    splits = {split: sorted(found[split], key=_sort_key) for split in SplitName}
    class_names = tuple(sorted({_name_as_text(directory) for directory in _class_directories(layout)}))
    _require_enough(root, class_names, splits, hashed)
    return ImageDirectory(root.resolve(), class_names, splits, ignored, layout.notes)


def hash_of_name(name: str) -> float:
    """Return a number in [0, 1) that depends on the name alone: the first 8 bytes of its SHA-256, over 2^64."""
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_by_name(name: str) -> SplitName:
    """Return the split that the hash of a name selects: about 10 % test, 10 % validation, the rest train."""
    return next((split for split in _HASH_RANGES if _hash_selects(name, split)), SplitName.TRAIN)


def _hash_selects(name: str, split: SplitName) -> bool:
    low, high = _HASH_RANGES[split]
    return low <= hash_of_name(name) < high


def _sort_key(image: ImageFile) -> tuple[str, str, bytes]:
    # The path decides between two names that are equal in NFC.
    return image.class_name, image.name, os.fsencode(image.path)


def _class_directories(layout: Layout) -> Iterator[Path]:
    for directories in layout.parents.values():
        for directory in directories:
            yield from subdirectories(directory)


def _images_in(root: Path, directory: Path, ignored: Counter[str]) -> Iterator[ImageFile]:
    """Yield the images in a directory whose subdirectories are classes, and count the other files."""
    ignored.update(_files_beside_directories(directory))
    for class_directory in subdirectories(directory):
        class_name = _name_as_text(class_directory)
        place, prefix = class_directory.relative_to(root).as_posix(), f"{class_directory}{os.sep}"
        for path, status in walk(class_directory, root.resolve(), ignored):
            relative = str(path).removeprefix(prefix)  # `relative_to` would take half of the time of listing
            name = f"{class_name}/{unicodedata.normalize('NFC', relative)}"
            yield ImageFile(path, name, class_name, f"{place}/{relative}", status.st_size, status.st_mtime_ns)


def _files_beside_directories(directory: Path) -> Iterator[str]:
    """Yield the suffix of each file directly in a directory that should contain only directories."""
    for entry in entries_of(directory):
        if not entry.is_dir():
            outside = " outside the directories of classes" if is_image(entry.name) else ""
            yield suffix_of(entry.name) + outside


def _name_as_text(directory: Path) -> str:
    """Return a directory's name in NFC.

    Raises
    ------
    DataError
        The name is not UTF-8, and could not be written into a run.
    """
    try:
        directory.name.encode()
    except UnicodeEncodeError:
        raise DataError(f"{printable(str(directory))}: its name is not UTF-8. Rename the directory.") from None
    return unicodedata.normalize("NFC", directory.name)


def _require_enough(
    root: Path, class_names: tuple[str, ...], splits: dict[SplitName, list[ImageFile]], hashed: list[SplitName]
) -> None:
    if not class_names:
        raise DataError(
            f"{root}: contains no subdirectories. Put the images of each class into a subdirectory named after it."
        )
    if len(class_names) == 1:
        raise DataError(
            f"{root}: contains one class, {printable(class_names[0])}; a classifier needs two or more. Give the "
            "directory that contains the directories of the classes."
        )
    present = {image.class_name for images in splits.values() for image in images}
    empty = [printable(name) for name in class_names if name not in present]
    if empty:
        more = f" and {len(empty) - MAX_LISTED} more" if len(empty) > MAX_LISTED else ""
        raise DataError(
            f"{root}: there are no images ({', '.join(SUFFIXES)}) of {', '.join(empty[:MAX_LISTED])}{more}. Add some, "
            "or remove the directory."
        )
    for split in (SplitName.TRAIN, SplitName.TEST):
        if not splits[split]:
            how = " (about a tenth of the images, chosen by a hash of their names)" if split in hashed else ""
            raise DataError(
                f"{root}: there is no {split} image{how}. Add images, or divide them into directories train, "
                "validation and test yourself."
            )
