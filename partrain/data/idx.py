"""Reads the IDX format of MNIST's files, strictly.

A file consists of, big-endian: two zero bytes; the type of the elements (0x08: unsigned bytes); the number of
dimensions; the size of each as a 32-bit number; then the elements and nothing else. It may be
compressed with gzip, which is recognised by its content.

Source: http://yann.lecun.com/exdb/mnist/, "The IDX file format".
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import math
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from partrain.data.dataset import Dataset, Split, build_dataset
from partrain.data.decoded_files import keep_decoded, open_decoded
from partrain.data.file_access import require_file, unreadable
from partrain.data.measurement_cache import MeasurementCache
from partrain.data.split_name import SplitName
from partrain.errors import DataError, ResourceError
from partrain.system.memory_limits import require_memory

FILE_NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
MAX_BYTES = 2 * 1024**3

_UNSIGNED_BYTES = 0x08
_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK_BYTES = 1024**2
# The smallest and the largest compressed file whose content is cached: decompressing takes 25 ms for each MiB.
_CACHED_BYTES = 1024**2, 64 * 1024**2
# What is measured over data sets of this size is cached: 10 MiB take 20 ms.
_MEASURED_BYTES = 1024**2
_REPLACE_IT = "Replace it with a complete copy."
_SAVE_AS_FILES = "Save the data as .npy files and use `data.name: arrays`: these need not fit into memory."


@dataclass(frozen=True, eq=False)
class IdxFile:
    """The content of an IDX file.

    Parameters
    ----------
    path : the file.
    array : uint8, of the shape in the header.
    sha256 : SHA-256 in hex of the uncompressed file.
    """

    path: Path
    array: NDArray[np.uint8]
    sha256: str

    @property
    def num_bytes(self) -> int:
        """The size of the uncompressed file."""
        return 4 + 4 * self.array.ndim + self.array.nbytes


def read_idx(path: str | Path, *, num_dimensions: int, max_bytes: int = MAX_BYTES) -> IdxFile:
    """Read an IDX file of unsigned bytes, plain or compressed with gzip.

    Parameters
    ----------
    path : the file.
    num_dimensions : the required number of dimensions: 3 for images, 1 for labels.
    max_bytes : the largest accepted content; checked before memory is allocated for it.

    Raises
    ------
    DataError
        The file cannot be read, is damaged, or has other dimensions.
    ResourceError
        Its content does not fit into memory.
    """
    path = Path(path)
    require_file(path)
    try:
        with open(path, "rb") as file:
            if file.peek(2)[:2] != _GZIP_MAGIC:
                return _read_stream(file, path, num_dimensions, max_bytes)
            if _CACHED_BYTES[0] <= os.fstat(file.fileno()).st_size <= _CACHED_BYTES[1]:
                return _read_once(file.read(), path, num_dimensions, max_bytes)
            with gzip.GzipFile(fileobj=file) as stream:
                return _read_stream(stream, path, num_dimensions, max_bytes)
    except EOFError:
        raise DataError(f"{path}: the gzip data is truncated. {_REPLACE_IT}") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: the gzip data is damaged ({error}). {_REPLACE_IT}") from None
    except OSError as error:
        raise unreadable(path, error) from None


def _read_once(compressed: bytes, path: Path, num_dimensions: int, max_bytes: int) -> IdxFile:
    """Read a compressed file that was read before from the cache; add another one to the cache."""
    with open_decoded(compressed) as cached, contextlib.suppress(DataError, OSError):  # a damaged entry is replaced
        if cached is not None:
            stream, sha256 = cached
            file = _read_stream(stream, path, num_dimensions, max_bytes)
            if file.sha256 == sha256:
                return file
    with gzip.GzipFile(fileobj=io.BytesIO(compressed)) as content:
        file = _read_stream(content, path, num_dimensions, max_bytes)
    keep_decoded(compressed, (_header(file.array.shape), file.array.reshape(-1).data), file.sha256)
    return file


def _read_stream(stream: io.BufferedIOBase, path: Path, num_dimensions: int, max_bytes: int) -> IdxFile:
    header = stream.read(4 + 4 * num_dimensions)
    sizes = _parse_header(header, path, num_dimensions)
    num_bytes = math.prod(sizes)
    announced = f"{' x '.join(str(size) for size in sizes)} = {num_bytes:,} bytes"
    if num_bytes > max_bytes:
        raise DataError(
            f"{path}: its header announces {announced}, more than the limit of {max_bytes:,}. If that is right: "
            f"{_SAVE_AS_FILES}"
        )
    require_memory(num_bytes, f"{path} ({announced})", _SAVE_AS_FILES)
    try:
        content = np.empty(num_bytes, np.uint8)
    except MemoryError:
        raise ResourceError(f"{path}: its content, {announced}, does not fit into memory.") from None

    # In chunks: the digest then finds the bytes in the processor's cache, and a file that is shorter than its header
    # says does not fill the memory.
    digest = hashlib.sha256(header)
    num_read = 0
    while num_read < num_bytes:
        chunk = content.data[num_read : num_read + _CHUNK_BYTES]
        num_new = stream.readinto(chunk)
        if num_new == 0:
            raise DataError(
                f"{path}: ends after {num_read:,} bytes of content; its header announces {announced}. {_REPLACE_IT}"
            )
        digest.update(chunk[:num_new])
        num_read += num_new
    # Reading to the end also makes gzip verify its checksum.
    if stream.read(1):
        raise DataError(f"{path}: has more data than the announced {announced}. {_REPLACE_IT}")
    return IdxFile(path, content.reshape(sizes), digest.hexdigest())


def _parse_header(header: bytes, path: Path, num_dimensions: int) -> tuple[int, ...]:
    if not header:
        raise DataError(f"{path}: is empty, expected an IDX file. {_REPLACE_IT}")
    expected = _header((0,) * num_dimensions)[:4]
    if header[:4] != expected[: len(header)]:
        raise DataError(
            f"{path}: begins with 0x{header[:4].hex()}, expected 0x{expected.hex()} (IDX, unsigned bytes, "
            f"dimensions: {num_dimensions}). Check that it is an IDX file, and that images (3 "
            "dimensions) and labels (1 dimension) are not swapped."
        )
    if len(header) < 4 + 4 * num_dimensions:
        raise DataError(f"{path}: ends after {len(header)} bytes, in the middle of its header. {_REPLACE_IT}")
    sizes = tuple(int(size) for size in np.frombuffer(header, ">u4", offset=4))
    if 0 in sizes:
        raise DataError(f"{path}: its header announces the sizes {sizes}; none may be 0. {_REPLACE_IT}")
    return sizes


def _header(sizes: tuple[int, ...]) -> bytes:
    return bytes((0, 0, _UNSIGNED_BYTES, len(sizes))) + np.array(sizes, ">u4").tobytes()


def split_of(images: IdxFile, labels: IdxFile) -> Split:
    """Make a split of images (N,H,W) and labels (N,); raise a DataError if their numbers differ."""
    num_images, num_labels = len(images.array), len(labels.array)
    if num_images != num_labels:
        raise DataError(
            f"{images.path} contains {num_images:,} images, but {labels.path} contains {num_labels:,} labels. "
            "Give two files that belong together."
        )
    require_memory(8 * num_labels, str(labels.path), _SAVE_AS_FILES)
    return Split(images.array[:, np.newaxis], labels.array.astype(np.int64))


def find_idx_files(directory: Path) -> dict[str, Path]:
    """Return the paths of those `FILE_NAMES` that a directory contains: plain or ".gz", with "-idx" or ".idx".

    Raises
    ------
    OSError
        The directory cannot be listed.
    """
    names = set(os.listdir(directory))
    found = {}
    for name in FILE_NAMES:
        dotted = name.replace("-idx", ".idx")
        for candidate in (f"{name}.gz", name, f"{dotted}.gz", dotted):
            if candidate in names:
                found[name] = directory / candidate
                break
    return found


def load_idx_directory(path: str | Path) -> Dataset:
    """Load the four files with MNIST's names from a directory, as the data set "idx".

    The classes are "0" up to the largest label.

    Raises
    ------
    DataError
        A file is missing or wrong.
    """
    directory = Path(os.path.expanduser(path))
    try:
        found = find_idx_files(directory)
    except (OSError, ValueError) as error:
        raise unreadable(directory, error) from None
    missing = [name for name in FILE_NAMES if name not in found]
    if missing:
        raise DataError(
            f"{directory}: contains no {', '.join(missing)}. Put the files there under these names (or with .idx "
            "in place of -idx), plain or compressed (.gz)."
        )
    files = [read_idx(found[name], num_dimensions=num_dimensions_of(name)) for name in FILE_NAMES]
    return idx_dataset("idx", str(directory.resolve()), files)


def num_dimensions_of(name: str) -> int:
    """Return the number of dimensions of one of `FILE_NAMES`: 3 of images, 1 of labels."""
    return 3 if "idx3" in name else 1


def idx_dataset(
    name: str, source: str, files: Sequence[IdxFile], class_names: tuple[str, ...] | None = None
) -> Dataset:
    """Make a data set of the content of `FILE_NAMES`, in their order; see `build_dataset`."""
    train_images, train_labels, test_images, test_labels = files
    measurements = None
    if sum(file.num_bytes for file in files) >= _MEASURED_BYTES:
        measurements = MeasurementCache((), variant="IDX " + " ".join(file.sha256 for file in files))
    return build_dataset(
        name,
        source,
        {SplitName.TRAIN: split_of(train_images, train_labels), SplitName.TEST: split_of(test_images, test_labels)},
        class_names,
        measurements=measurements,
    )
