"""Detects changes of a large file without reading all of it: by its size, its time, and a digest of 64 sampled blocks.

Reading a file of 20 GB at each start can take longer than the training. A change that keeps size and time, and touches
none of the sampled blocks, is not detected.
"""

from __future__ import annotations

import functools
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from partrain.data.file_access import unreadable
from partrain.errors import DataError
from partrain.kernels.randomness import philox_words

# The first block, the last block, and others at positions that depend on the file's size alone.
NUM_BLOCKS, BLOCK_BYTES = 64, 4096


@dataclass(frozen=True)
class FileFingerprint:
    """The state of a file when its fingerprint was taken.

    Attributes
    ----------
    path : the file.
    num_bytes, mtime_ns, inode : from its status.
    digest : SHA-256 in hex of the sampled blocks.
    """

    path: str
    num_bytes: int
    mtime_ns: int
    inode: int
    digest: str

    def require_unchanged(self) -> None:
        """Compare the file with its fingerprint.

        Raises
        ------
        DataError
            The file was changed, replaced or deleted.
        """
        now = take_fingerprint(Path(self.path))
        if now != self:
            change = "its size" if now.num_bytes != self.num_bytes else "its time or content"
            raise DataError(f"{self.path}: was changed while it was used: {change} is not what it was.")


def take_fingerprint(path: Path) -> FileFingerprint:
    """Return the fingerprint of a file.

    Raises
    ------
    DataError
        The file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            for start in _sampled_positions(status.st_size):
                digest.update(os.pread(file.fileno(), BLOCK_BYTES, start))
    except OSError as error:
        raise unreadable(path, error) from None
    return FileFingerprint(
        os.path.realpath(path), status.st_size, status.st_mtime_ns, status.st_ino, digest.hexdigest()
    )


@functools.cache
def _sampled_positions(num_bytes: int) -> tuple[int, ...]:
    words = philox_words(NUM_BLOCKS - 2, seed=0, purpose="samples of a file", name=str(num_bytes))
    blocks = words % np.uint64(num_bytes // BLOCK_BYTES + 1)
    return (0, *(int(block) * BLOCK_BYTES for block in blocks), max(0, num_bytes - BLOCK_BYTES))
