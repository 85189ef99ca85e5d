"""Recognises the directories of splits in a directory of images.

A directory is one of a split by its name (`train`, `test_set`, `val` and the like) if it has subdirectories, which are
the classes; a class can have such a name, too, but its images lie directly in its directory. The directories of splits
and of classes cannot stand side by side: what was meant is not known then.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from partrain.data.image_tree import entries_of, is_image, subdirectories
from partrain.data.split_name import SplitName
from partrain.errors import DataError
from partrain.system.terminal_text import printable

_WORDS = {
    "train": SplitName.TRAIN,
    "training": SplitName.TRAIN,
    "validation": SplitName.VALIDATION,
    "valid": SplitName.VALIDATION,
    "val": SplitName.VALIDATION,
    "test": SplitName.TEST,
    "testing": SplitName.TEST,
}
# What a name may add to one of the words.
_ADDITIONS = "(set|sets|data|dataset|images|pictures|photos|split)?"


@dataclass(frozen=True)
class Layout:
    """How a directory of images is divided.

    Attributes
    ----------
    parents : for each split that has directories, those whose subdirectories are its classes; "train" always has some.
    notes : sentences that tell the user what was understood, where that is not obvious.
    """

    parents: Mapping[SplitName, Sequence[Path]]
    notes: tuple[str, ...]


def recognise_layout(root: Path) -> Layout:
    """Find out whether the subdirectories of a directory of images are splits or classes.

    Raises
    ------
    DataError
        They are both, or there is none for training, or one has images beside its classes' directories.
    """
    directories = subdirectories(root)
    named = {directory: split for directory in directories if (split := _split_of(directory.name))}
    if len(named) < len(directories) or SplitName.TRAIN not in named.values():
        named = _with_subdirectories(named) or _loosely_named(directories)
    if not named:
        return Layout({SplitName.TRAIN: [root]}, _notes_on_classes(directories))
    _require_splits_only(root, directories, named)
    parents: dict[SplitName, list[Path]] = {}
    for directory, split in named.items():
        parents.setdefault(split, []).append(directory)
    understood = [
        f"{printable(directory.name)} is read as {split}"
        for directory, split in named.items()
        if directory.name != split
    ]
    return Layout(parents, (", ".join(understood),) if understood else ())


def _split_of(name: str) -> SplitName | None:
    """Return the split that a directory's name stands for: `train`, `Training_Set`, `val`."""
    letters = re.sub(r"[\s_.-]+", "", name.lower())
    return next((split for word, split in _WORDS.items() if re.fullmatch(word + _ADDITIONS, letters)), None)


def _loosely_named(directories: Sequence[Path]) -> dict[Path, SplitName]:
    """Return directories like `seg_train` and `seg_test`, if there are some of two splits."""
    named = {}
    for directory in directories:
        words = {_WORDS[word] for word in re.split(r"[^a-z]+", directory.name.lower()) if word in _WORDS}
        if len(words) == 1:
            named[directory] = words.pop()
    named = _with_subdirectories(named)
    return named if SplitName.TRAIN in named.values() and len(set(named.values())) > 1 else {}


def _with_subdirectories(named: Mapping[Path, SplitName]) -> dict[Path, SplitName]:
    return {directory: split for directory, split in named.items() if subdirectories(directory)}


def _require_splits_only(root: Path, directories: Sequence[Path], named: Mapping[Path, SplitName]) -> None:
    splits = ", ".join(printable(directory.name) for directory in named)
    for directory in directories:
        if directory not in named:
            raise DataError(
                f"{printable(str(directory))}: its name is not that of a split, but other directories of {root} are "
                f"splits: {splits}. Move it to another place. If all of them are classes, rename {splits}."
            )
    if SplitName.TRAIN not in named.values():
        raise DataError(
            f"{root}: {splits} are read as splits, but there is no directory `train`. Add it, or rename the "
            "directories if they are classes."
        )
    for directory in named:
        classes = subdirectories(directory)
        if not classes and any(is_image(entry.name) for entry in entries_of(directory)):
            raise DataError(
                f"{printable(str(directory))}: contains images, but no directories of classes. Put the images of each "
                "class into a subdirectory named after it; if their classes are not known, move the directory away."
            )
        for inner in classes:
            if inner.name == directory.name and subdirectories(inner):
                raise DataError(
                    f"{printable(str(inner))}: is a directory of a split inside that of a split. Move what it contains "
                    "one level up."
                )


def _notes_on_classes(directories: Sequence[Path]) -> tuple[str, ...]:
    """Return what is worth saying if all subdirectories are classes."""
    notes = [f"{printable(d.name)} is read as a class, not as a split" for d in directories if _split_of(d.name)]
    for directory in directories[:1]:  # of the first class only: reading large directories takes time
        inner = [d for d in subdirectories(directory) if _split_of(d.name)]
        if len({_split_of(d.name) for d in inner}) > 1:
            names = ", ".join(printable(f"{directory.name}/{d.name}") for d in inner)
            notes.append(
                f"{names} are not read as splits: the directories of splits have to be above those of the classes"
            )
    return tuple(notes)
