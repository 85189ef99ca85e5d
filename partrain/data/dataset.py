"""What every source of data hands over: two splits of images and labels, and a digest of their content.

Shapes: N examples; C, H, W channels, rows, columns.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from partrain.errors import DataError

_CHUNK_BYTES = 4 * 1024**2


# Without eq: comparing arrays gives arrays, so a generated == or hash would only raise.
@dataclass(frozen=True, eq=False)
class Split:
    """Examples with their labels.

    Parameters
    ----------
    images : uint8 or float32, shape (N,C,H,W), C-contiguous; a `numpy.memmap` where the file is mapped.
    labels : int64, shape (N,).
    """

    images: NDArray[np.uint8] | NDArray[np.float32]
    labels: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test split, where they come from, and what their content is.

    Parameters
    ----------
    name : the configuration's `data.name` of what is really in here.
    source : a path, a mirror's address, or "synthetic-digits".
    train, test : the splits; their images agree in shape and dtype.
    class_names : the name of each label, from 0 on.
    digest : SHA-256 in hex of the content of both splits, see `content_digest`.
    """

    name: str
    source: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    digest: str

    @property
    def files(self) -> dict[str, Split]:
        """The splits by the names of their files, "train" and "test"."""
        return {"train": self.train, "test": self.test}


def build_dataset(
    name: str, source: str, train: Split, test: Split, class_names: tuple[str, ...] | None = None
) -> Dataset:
    """Put two splits together; without `class_names` the classes are "0" up to the largest label.

    Raises
    ------
    DataError
        If the splits differ in the shape or dtype of their images, or a label has no class.
    """
    for what, of_train, of_test in (
        ("shape", train.images.shape[1:], test.images.shape[1:]),
        ("dtype", train.images.dtype, test.images.dtype),
    ):
        if of_train != of_test:
            raise DataError(
                f"{source}: the training images have {what} {of_train}, the test images {of_test}. Give both the same."
            )
    largest = max(int(train.labels.max()), int(test.labels.max()))
    if class_names is None:
        class_names = tuple(str(label) for label in range(largest + 1))
    elif largest >= len(class_names):
        raise DataError(
            f"{source}: found the label {largest}, but {name} has only the labels 0 to "
            f"{len(class_names) - 1}. Replace the files of labels with the right ones."
        )
    return Dataset(name, source, train, test, class_names, content_digest(train, test))


def content_digest(train: Split, test: Split) -> str:
    """Return the SHA-256 in hex over dtype, shape and content of the four arrays.

    The order is training images, training labels, test images, test labels.
    """
    digest = hashlib.sha256()
    for array in (train.images, train.labels, test.images, test.labels):
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
