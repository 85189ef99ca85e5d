"""Arrays that may be memory-mapped files, some of them larger than memory."""

from __future__ import annotations

import mmap
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

# Mapped files of at least this size are never copied into memory: examples are read when they are needed.
STREAMED_BYTES = 256 * 1024**2

_CHUNK_BYTES = 4 * 1024**2


def is_streamed(array: NDArray[np.generic]) -> bool:
    """Return whether an array is, or is part of, a mapped file that is too large to be copied into memory."""
    mapped = getattr(array, "_mmap", None)
    return mapped is not None and len(mapped) >= STREAMED_BYTES


def chunks(array: NDArray[np.generic]) -> Iterator[NDArray[np.generic]]:
    """Yield the elements of an array in C order, as flat pieces of a few MB, so that large files need little memory.

    The pieces are views of a C-contiguous array, and copies of another one.
    """
    if not array.flags.c_contiguous:
        yield from _copied_chunks(array)
        return
    flat = array.reshape(-1)
    step = _CHUNK_BYTES // array.itemsize
    for start in range(0, flat.size, step):
        yield flat[start : start + step]
        release_pages(array)


def _copied_chunks(array: NDArray[np.generic]) -> Iterator[NDArray[np.generic]]:
    step = max(1, _CHUNK_BYTES // array[0].nbytes) if array.size else 1
    for start in range(0, len(array) if array.size else 0, step):
        yield np.array(array[start : start + step], order="C", subok=False).reshape(-1)
        release_pages(array)


def release_pages(array: NDArray[np.generic]) -> None:
    """Release the pages of a streamed array from this process; reading the array maps them again."""
    if is_streamed(array) and hasattr(mmap, "MADV_DONTNEED"):
        array._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]
