"""A data set: named splits of images and labels, and a digest of their content.

Shapes: N examples; C, H, W channels, rows, columns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.data.mapped_arrays import chunks
from partrain.data.measurement_cache import MeasurementCache
from partrain.data.split_name import SplitName
from partrain.errors import DataError
from partrain.system.shared_arrays import SharedArrays

# The suffixes of image files that early versions did not read; files have names in UTF-8.
_LATER_SUFFIXES = (b".gif", b".jfif", b".tif", b".tiff")


# Without eq: comparing arrays gives arrays, so a generated == or hash would only raise.
@dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels. The index of an example counts from 0 within its split.

    Parameters
    ----------
    images : uint8 or float32, shape (N,C,H,W); a `numpy.memmap` if the file is mapped. C-contiguous, except for a
        streamed file with the channels last, of which it is a view.
    labels : int64, shape (N,).
    files : the image file of each example, relative to the data set's directory, in UTF-8, shape (N,); None if the
        examples are not files.
    """

    images: NDArray[np.uint8] | NDArray[np.float32]
    labels: NDArray[np.int64]
    files: NDArray[np.bytes_] | None = None

    @property
    def size(self) -> int:
        """The number of examples."""
        return len(self.labels)

    def part(self, first: int, last: int) -> Split:
        """Return the examples `first` to `last` - 1 as a split that shares memory with this one."""
        images = self.images[first:last]
        if isinstance(images, np.memmap) and images.size:
            # NumPy gives a slice of a mapped array the file offset of the whole array.
            images.offset += first * images[0].nbytes
        return Split(images, self.labels[first:last], None if self.files is None else self.files[first:last])

    def take(self, indices: NDArray[np.int64]) -> Split:
        """Return a copy of the examples with these indices, in their order."""
        images = np.ascontiguousarray(np.take(self.images, indices, axis=0))
        return Split(images, self.labels[indices], None if self.files is None else self.files[indices])

    def file_entry(self, index: int) -> dict[str, str]:
        """Return the image file of an example as an entry `file`; nothing if the examples are not files."""
        return {} if self.files is None else {"file": self.files[index].decode(errors="replace")}


@dataclass(frozen=True, eq=False)
class Dataset:
    """Splits whose images agree in shape and dtype, and where they come from.

    A source provides the splits "train" and "test", and maybe "validation"; otherwise `data.loading.load_dataset`
    divides "train" into "train" and "validation". A data set that is only evaluated has one split.

    Parameters
    ----------
    name : the configuration's `data.name` of the data that are really used.
    source : a path, the URL of a mirror, or "synthetic-digits".
    splits : at least one.
    class_names : the name of each label, from 0.
    digest : SHA-256 in hex of the content of the source, see `content_digest`.
    num_validation : the number of examples at the end of the source's training split that are for validation; None if
        the source does not say.
    skipped : names of files that were left out because they cannot be used.
    measurements : cache of measurements, if the data set is large.
    ignored : of a directory of images, the number of files that are no images, by their suffix.
    has_own_validation : whether the source has validation examples beside its training examples.
    memory : the shared memory that contains the images and labels; None: they are this process's own.
    """

    name: str
    source: str
    splits: Mapping[SplitName, Split]
    class_names: tuple[str, ...]
    digest: str
    num_validation: int | None = None
    skipped: tuple[str, ...] = ()
    measurements: MeasurementCache | None = None
    ignored: Mapping[str, int] = field(default_factory=dict)
    has_own_validation: bool = False
    memory: SharedArrays | None = None

    def renamed(self, name: str, source: str, skipped: tuple[str, ...] = ()) -> Dataset:
        """Return the same examples under the name of another data set."""
        return replace(self, name=name, source=source, skipped=skipped)

    @property
    def hint_at_other_digest(self) -> str:
        """Why the digest may differ from an older run's although no file has changed; empty if there is no reason."""
        names = [name for split in self.splits.values() if split.files is not None for name in split.files.tolist()]
        num_files = sum(name.lower().endswith(_LATER_SUFFIXES) for name in names)
        if not num_files:
            return ""
        return (
            f". Early versions of partrain did not use .gif, .jfif, .tif and .tiff files, of which {num_files:,} are "
            "used now; a run that began with such a version needs a directory without them"
        )

    def measured(self, name: str, measure: Callable[[], Any]) -> Any:
        """Return the result of `measure`, which JSON can represent; for large files it is cached under `name`."""
        return measure() if self.measurements is None else self.measurements.get(name, measure)

    def require_unchanged(self) -> None:
        """Check that streamed files have not changed.

        Raises
        ------
        DataError
            A file was changed.
        """
        if self.measurements is not None:
            self.measurements.require_unchanged()

    @property
    def train(self) -> Split:
        """The training examples."""
        return self.splits[SplitName.TRAIN]

    @property
    def validation(self) -> Split:
        """The validation examples; the split may be empty."""
        return self.splits[SplitName.VALIDATION]

    @property
    def test(self) -> Split:
        """The test examples."""
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
    measurements: MeasurementCache | None = None,
) -> Dataset:
    """Make a data set from splits; without `class_names` the classes are "0" to the largest label.

    Raises
    ------
    DataError
        The images of the splits differ in shape or dtype, or a label has no class.
    """
    (first_name, first), *others = splits.items()
    for split_name, split in others:
        for aspect, one, other in (
            ("shape", first.images.shape[1:], split.images.shape[1:]),
            ("dtype", first.images.dtype, split.images.dtype),
        ):
            if one != other:
                raise DataError(
                    f"{source}: the {first_name} images have {aspect} {one}, the {split_name} images {other}. "
                    "Give both the same."
                )
    largest = max(int(split.labels.max(initial=-1)) for split in splits.values())
    if class_names is None:
        class_names = tuple(str(label) for label in range(largest + 1))
    elif largest >= len(class_names):
        raise DataError(
            f"{source}: found the label {largest}, but {name} has only the labels 0 to {len(class_names) - 1}. "
            "Replace the labels with the right ones."
        )
    has_own_validation = SplitName.VALIDATION in splits
    dataset = Dataset(
        name, source, splits, class_names, "", num_validation, (), measurements, has_own_validation=has_own_validation
    )
    return replace(dataset, digest=dataset.measured("digest", lambda: content_digest(splits)))


def content_digest(splits: Mapping[SplitName, Split]) -> str:
    """Return the SHA-256 in hex over dtype, shape and content of each split's images and labels, in this order."""
    digest = hashlib.sha256()
    for split in splits.values():
        for array in (split.images, split.labels):
            digest.update(f"{array.dtype.str} {array.shape}\n".encode())
            for chunk in chunks(array):
                digest.update(chunk.data)
    return digest.hexdigest()
