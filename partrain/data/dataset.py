"""A data set: named splits of images and labels, and a digest of their content.

Shapes: N examples; C, H, W channels, rows, columns.
"""

from __future__ import annotations

import hashlib
import mmap
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from partrain.data.split_name import SplitName
from partrain.errors import DataError

_CHUNK_BYTES = 4 * 1024**2
# Arrays of files that are at least so large are never copied into memory: what is needed of them is read.
STREAMED_BYTES = 256 * 1024**2


# Without eq: comparing arrays gives arrays, so a generated == or hash would only raise.
@dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels; an example is named by its index, from 0 on.

    Parameters
    ----------
    images : uint8 or float32, shape (N,C,H,W), C-contiguous; a `numpy.memmap` if the file is mapped.
    labels : int64, shape (N,).
    """

    images: NDArray[np.uint8] | NDArray[np.float32]
    labels: NDArray[np.int64]

    @property
    def size(self) -> int:
        """The number of examples."""
        return len(self.labels)

    def part(self, first: int, last: int) -> Split:
        """Return the examples `first` … `last`-1 as a split of their own, which shares memory with this one."""
        images = self.images[first:last]
        if isinstance(images, np.memmap) and images.size:
            # NumPy gives a part of a mapped array the offset of the whole.
            images.offset += first * images[0].nbytes
        return Split(images, self.labels[first:last])


class Measurements(Protocol):
    """What is measured of files that are too large to be read at each start (data.file_samples)."""

    def get(self, name: str, measure: Callable[[], Any]) -> Any:
        """Return what is known under `name`, or what `measure` returns."""

    def require_unchanged(self) -> None:
        """Raise a DataError if a file is not what it was."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Splits with images of the same shape and dtype, and where they come from.

    A source of data has the splits "train" and "test"; `data.loading.load_dataset` divides the former into "train" and
    "validation". A set that is only evaluated has one split.

    Parameters
    ----------
    name : the configuration's `data.name` of what is really in here.
    source : a path, a mirror's address, or "synthetic-digits".
    splits : at least one.
    class_names : the name of each label, from 0 on.
    digest : SHA-256 in hex of the content of the source, see `content_digest`.
    num_validation : how many examples at the end of the source's training split are for validation; None if the source
        does not say.
    skipped : names of the files that were left out because they cannot be used.
    measurements : where a split is a file that is read as it is needed.
    """

    name: str
    source: str
    splits: Mapping[SplitName, Split]
    class_names: tuple[str, ...]
    digest: str
    num_validation: int | None = None
    skipped: tuple[str, ...] = ()
    measurements: Measurements | None = None

    def renamed(self, name: str, source: str, skipped: tuple[str, ...] = ()) -> Dataset:
        """Return the same examples as another data set's."""
        return replace(self, name=name, source=source, skipped=skipped)

    def measured(self, name: str, measure: Callable[[], Any]) -> Any:
        """Return what `measure` returns, which JSON can hold; of files that are large, what is known of them."""
        return measure() if self.measurements is None else self.measurements.get(name, measure)

    def require_unchanged(self) -> None:
        """Check that files that are read as they are needed are what they were.

        Raises
        ------
        DataError
            One was changed.
        """
        if self.measurements is not None:
            self.measurements.require_unchanged()

    @property
    def train(self) -> Split:
        """The examples for training."""
        return self.splits[SplitName.TRAIN]

    @property
    def validation(self) -> Split:
        """The examples for validation; there may be none."""
        return self.splits[SplitName.VALIDATION]

    @property
    def test(self) -> Split:
        """The examples for the test."""
        return self.splits[SplitName.TEST]

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape (C,H,W) of an image."""
        return next(iter(self.splits.values())).images.shape[1:]

    @property
    def image_dtype(self) -> str:
        """The dtype of the images, "uint8" or "float32"."""
        return next(iter(self.splits.values())).images.dtype.name


def build_dataset(
    name: str,
    source: str,
    splits: Mapping[SplitName, Split],
    class_names: tuple[str, ...] | None = None,
    num_validation: int | None = None,
    measurements: Measurements | None = None,
) -> Dataset:
    """Make a data set of splits; without `class_names` the classes are "0" up to the largest label.

    Raises
    ------
    DataError
        If the splits differ in the shape or dtype of their images, or a label has no class.
    """
    (first_name, first), *others = splits.items()
    for split_name, split in others:
        for what, one, other in (
            ("shape", first.images.shape[1:], split.images.shape[1:]),
            ("dtype", first.images.dtype, split.images.dtype),
        ):
            if one != other:
                raise DataError(
                    f"{source}: the {first_name} images have {what} {one}, the {split_name} images {other}. "
                    "Give both the same."
                )
    largest = max(int(split.labels.max()) for split in splits.values())
    if class_names is None:
        class_names = tuple(str(label) for label in range(largest + 1))
    elif largest >= len(class_names):
        raise DataError(
            f"{source}: found the label {largest}, but {name} has only the labels 0 to "
            f"{len(class_names) - 1}. Replace the files of labels with the right ones."
        )
    dataset = Dataset(name, source, splits, class_names, "", num_validation, (), measurements)
    return replace(dataset, digest=dataset.measured("digest", lambda: content_digest(splits)))


def content_digest(splits: Mapping[SplitName, Split]) -> str:
    """Return the SHA-256 in hex over dtype, shape and content of each split's images, then of its labels."""
    digest = hashlib.sha256()
    for split in splits.values():
        for array in (split.images, split.labels):
            digest.update(f"{array.dtype.str} {array.shape}\n".encode())
            for chunk in chunks(array):
                digest.update(chunk.data)
    return digest.hexdigest()


def chunks(array: NDArray[np.generic]) -> Iterator[NDArray[np.generic]]:
    """Yield a C-contiguous array's elements as flat views of a few MB, for files larger than memory."""
    assert array.flags.c_contiguous
    flat = array.reshape(-1)
    step = _CHUNK_BYTES // array.itemsize
    for start in range(0, flat.size, step):
        yield flat[start : start + step]
        let_go(array)


def let_go(array: NDArray[np.generic]) -> None:
    """Let the pages that were read of a large mapped file go from this process; they come back by reading."""
    if is_streamed(array) and hasattr(mmap, "MADV_DONTNEED"):
        array._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]


def is_streamed(array: NDArray[np.generic]) -> bool:
    """Return whether an array is, or is part of, a mapped file that is too large to be copied into memory."""
    mapped = getattr(array, "_mmap", None)
    return mapped is not None and len(mapped) >= STREAMED_BYTES


def require_file(path: Path) -> None:
    """Raise a DataError unless `path` is a regular file: opening a pipe, for example, would hang."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    if not stat.S_ISREG(mode):
        what = "a directory" if stat.S_ISDIR(mode) else "neither a file nor a link to one"
        raise DataError(f"{path}: is {what}, expected a file. Give the path of the file itself.")


def unreadable(path: Path, error: Exception) -> DataError:
    """Return the DataError for a file or folder that the system does not let us read."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return DataError(f"{path}: cannot be read: {reason}. Check the path and its permissions.")
