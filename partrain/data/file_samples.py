"""Whether a large file is the one that it was: by its size, its time, and a digest of some of its content.

Reading 20 GB at each start would take longer than many a training. What is measured of such files once is kept in the
cache, under their samples. A change that keeps size and time, and touches none of the sampled blocks, is not seen.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from partrain.data.dataset import unreadable
from partrain.errors import DataError
from partrain.kernels.randomness import philox_words
from partrain.system.cache_directories import cache_home

# Blocks of a file that are read: its first, its last, and others at places that depend on its size alone.
NUM_BLOCKS, BLOCK_BYTES = 64, 4096


@dataclass(frozen=True)
class FileSamples:
    """What a file looked like.

    Attributes
    ----------
    path : the file.
    num_bytes, mtime_ns, inode : of its status.
    digest : SHA-256 in hex of the sampled blocks.
    """

    path: str
    num_bytes: int
    mtime_ns: int
    inode: int
    digest: str

    def require_unchanged(self) -> None:
        """Compare the file with what it looked like.

        Raises
        ------
        DataError
            It is another one, was changed, or is gone.
        """
        now = sample_file(Path(self.path))
        if now != self:
            what = "its size" if now.num_bytes != self.num_bytes else "its time or content"
            raise DataError(f"{self.path}: was changed while it was used: {what} is not what it was.")


def sample_file(path: Path) -> FileSamples:
    """Look at a file.

    Raises
    ------
    DataError
        It cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            for start in _places(status.st_size):
                digest.update(os.pread(file.fileno(), BLOCK_BYTES, start))
    except OSError as error:
        raise unreadable(path, error) from None
    return FileSamples(os.path.realpath(path), status.st_size, status.st_mtime_ns, status.st_ino, digest.hexdigest())


@functools.cache
def _places(num_bytes: int) -> tuple[int, ...]:
    words = philox_words(NUM_BLOCKS - 2, seed=0, purpose="samples of a file", name=str(num_bytes))
    blocks = words % np.uint64(num_bytes // BLOCK_BYTES + 1)
    return (0, *(int(block) * BLOCK_BYTES for block in blocks), max(0, num_bytes - BLOCK_BYTES))


class Measurements:
    """What was measured of some files, kept in the cache until they change.

    Parameters
    ----------
    files : the files, as they are.
    """

    def __init__(self, files: Sequence[FileSamples]) -> None:
        self.files = tuple(files)
        key = hashlib.sha256(repr([vars(file) for file in self.files]).encode()).hexdigest()[:32]
        self._path = cache_home() / "measured" / f"{key}.json"

    def get(self, name: str, measure: Callable[[], Any]) -> Any:
        """Return what is known under `name`, or what `measure` returns: something that JSON can hold.

        Raises
        ------
        DataError
            A file was changed while it was measured; or what `measure` raises.

        Side effects
        ------------
        Writes into the folder `measured` of `cache_home()`; where it cannot, the next start measures again.
        """
        known = self._read()
        if name not in known:
            measured = measure()
            self.require_unchanged()
            known[name] = measured
            with contextlib.suppress(OSError):
                self._write(self._read() | known)
        return known[name]

    def require_unchanged(self) -> None:
        """Compare the files with what they were.

        Raises
        ------
        DataError
            One was changed.
        """
        for file in self.files:
            file.require_unchanged()

    def _read(self) -> dict[str, Any]:
        try:
            known = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}

    def _write(self, known: dict[str, Any]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_suffix(f".{secrets.token_hex(4)}.part")
        try:
            temporary.write_text(json.dumps(known))
            os.replace(temporary, self._path)
        finally:
            temporary.unlink(missing_ok=True)
