"""CIFAR-10: 60,000 photographs of 32 x 32 pixels in ten classes, from the binary version of its archive.

Its publisher gives an MD5 of the archive and no SHA-256. An MD5 detects a damaged file, but not a forged one.

Source: Krizhevsky, "Learning multiple layers of features from tiny images", 2009, and the data set's page,
https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from partrain.data.catalog import unavailable
from partrain.data.dataset import Dataset, Split, build_dataset
from partrain.data.download import fetch_from_mirrors
from partrain.data.file_access import require_file, unreadable
from partrain.data.split_name import SplitName
from partrain.errors import DataError
from partrain.system.cache_directories import data_directory

NAME = "cifar-10"
FILE_NAME = "cifar-10-binary.tar.gz"
MIRRORS = ("https://www.cs.toronto.edu/~kriz/",)
NUM_BYTES = 170_052_171
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
EXAMPLES_PER_FILE = 10_000
SHAPE = (3, 32, 32)
_FOLDER = "cifar-10-batches-bin"
_TRAIN_FILES = tuple(f"{_FOLDER}/data_batch_{k}.bin" for k in range(1, 6))
_TEST_FILE = f"{_FOLDER}/test_batch.bin"


@dataclass(frozen=True)
class Archive:
    """The archive on this machine.

    Attributes
    ----------
    path : the file.
    source : the directory in which it was found, or the mirror from which it was fetched.
    """

    path: Path
    source: str


def load_cifar10(name: str = NAME, *, say: Callable[[str], None]) -> Dataset:
    """Load CIFAR-10; fetch the archive if it is not on this machine.

    Raises
    ------
    DataUnavailable, DataError
        As for `fetch_archive`; or the archive has the wrong content.

    Side effects
    ------------
    As for `fetch_archive`.
    """
    archive = _find_archive(say)
    contents = _read_members(archive.path)
    train = [_split(contents[file_name], archive.path, file_name) for file_name in _TRAIN_FILES]
    images = np.concatenate([split.images for split in train])
    labels = np.concatenate([split.labels for split in train])
    test = _split(contents[_TEST_FILE], archive.path, _TEST_FILE)
    splits = {SplitName.TRAIN: Split(images, labels), SplitName.TEST: test}
    return build_dataset(name, archive.source, splits, CLASS_NAMES)


def archive_path() -> Path:
    """Return the path at which the archive belongs."""
    return data_directory() / NAME / FILE_NAME


def fetch_archive(*, say: Callable[[str], None]) -> Archive:
    """Verify the archive on this machine; fetch it if there is none.

    Raises
    ------
    DataUnavailable
        The archive is not available; the message lists each place that was tried, and the reason.
    DataError
        The file on this machine is wrong. It is never replaced.

    Side effects
    ------------
    A fetched archive stays in `data_directory()`, in `cifar-10`. Shows a progress bar if stderr is a terminal.
    """
    archive = _find_archive(say)
    check_archive(archive.path)
    return archive


def _find_archive(say: Callable[[str], None]) -> Archive:
    """Return the archive on this machine, unverified; fetch it if there is none."""
    path = archive_path()
    if path.exists():
        return Archive(path, str(path.parent.resolve()))
    tried = [f"{path.parent}: contains no {FILE_NAME}"]
    mirror = fetch_from_mirrors(list(MIRRORS), tried, path, check_archive, max_bytes=NUM_BYTES, say=say)
    if mirror is None:
        raise unavailable(NAME, path.parent, [FILE_NAME], tried)
    return Archive(path, mirror)


def check_archive(path: Path) -> None:
    """Compare a file with the size and the MD5 of the archive.

    Raises
    ------
    DataError
        The file is damaged, or another file.
    """
    require_file(path)
    try:
        num_bytes = path.stat().st_size
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise unreadable(path, error) from None
    _require_right(path, num_bytes, digest)


def _require_right(path: Path, num_bytes: int, digest: str) -> None:
    if (num_bytes, digest) != (NUM_BYTES, MD5):
        raise DataError(
            f"{path}: is damaged, or is not {FILE_NAME}. It has {num_bytes:,} bytes with the MD5 {digest}, expected "
            f"{NUM_BYTES:,} bytes with {MD5}. Delete the file to have it fetched again, or put the right one there."
        )


class _DigestingReader:
    """A file that is read from its start to its end, with the size and the MD5 of what was read.

    Attributes
    ----------
    num_bytes : how many bytes were read.
    md5 : their digest so far.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.num_bytes, self.md5 = file, 0, hashlib.md5(usedforsecurity=False)

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes."""
        data = self._file.read(size)
        self.num_bytes += len(data)
        self.md5.update(data)
        return data


def _read_members(path: Path) -> dict[str, bytes]:
    """Return the content of the six files of examples, without extracting anything to disk.

    The very bytes that are unpacked are verified: if the file were read twice, it could change in between.
    """
    require_file(path)
    size = EXAMPLES_PER_FILE * (1 + int(np.prod(SHAPE)))
    wanted = (*_TRAIN_FILES, _TEST_FILE)
    contents: dict[str, bytes] = {}
    try:
        with open(path, "rb") as file:
            reader = _DigestingReader(file)
            with tarfile.open(fileobj=cast(BinaryIO, reader), mode="r|gz") as archive:
                for member in archive:
                    if member.name in wanted and member.isfile() and member.size == size:
                        content = archive.extractfile(member)
                        assert content is not None
                        contents[member.name] = content.read()
            while reader.read(tarfile.RECORDSIZE):
                pass  # what follows the last member
        _require_right(path, reader.num_bytes, reader.md5.hexdigest())
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        check_archive(path)
        raise DataError(f"{path}: cannot be unpacked: {error}. Delete the file to have it fetched again.") from None
    missing = [file_name for file_name in wanted if len(contents.get(file_name, b"")) != size]
    if missing:
        raise DataError(f"{path}: contains no {', '.join(missing)} of {size:,} bytes. Put the right file there.")
    return contents


def _split(content: bytes, path: Path, file_name: str) -> Split:
    """Parse records of one byte for the label, then the red, green and blue planes."""
    records = np.frombuffer(content, np.uint8).reshape(EXAMPLES_PER_FILE, -1)
    labels = records[:, 0].astype(np.int64)
    if labels.max() >= len(CLASS_NAMES):
        raise DataError(f"{path}: {file_name} contains the label {labels.max()}, expected 0 to 9.")
    return Split(np.ascontiguousarray(records[:, 1:]).reshape(-1, *SHAPE), labels)
