"""NumPy arrays in memory that the coordinator and its workers share.

All arrays are in one anonymous file. It has no name that a crash could leave behind, and disappears with the last
process that maps it. Its memory is allocated when it is created, so that too little memory is an error at that point
and not a bus error in the middle of a step. Arrays in files that are too large for memory are passed by file name, and
each process reads what it needs (parallel.workers.example_source).
"""

from __future__ import annotations

import contextlib
import errno
import math
import mmap
import multiprocessing.reduction
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.errors import ResourceError

Array = NDArray[Any]

# One page, so that no two arrays share a page or a cache line.
ALIGNMENT = 4096

# Where files are in memory, for systems without `memfd_create`.
SHARED_MEMORY = "/dev/shm"

_ZEROS = bytes(2**20)


@dataclass(frozen=True)
class ArraySpec:
    """Shape and dtype of an array that is to be allocated."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def num_bytes(self) -> int:
        """The size in bytes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class MappedFile:
    """An array in a file, described as for `numpy.memmap`; it is never written.

    Attributes
    ----------
    path, offset, shape, dtype : as for `numpy.memmap`.
    channels_last : the file contains (N,H,W,C), and `shape` is (N,C,H,W).
    """

    path: str
    offset: int
    shape: tuple[int, ...]
    dtype: str
    channels_last: bool = False


@dataclass(frozen=True, eq=False)
class SharedPart:
    """An array in the memory of other shared arrays.

    Attributes
    ----------
    memory : the other shared arrays.
    offset : where it begins in their memory, in bytes.
    spec : its shape and dtype.
    """

    memory: SharedArrays
    offset: int
    spec: ArraySpec


class SharedArrays(Mapping[str, Array]):
    """Arrays by name; they can be passed to a worker at its start.

    Parameters
    ----------
    specs : the arrays to allocate; they are initialised to zero.
    files : arrays in files; they are found in the attribute `files`, not among the arrays.
    parts : arrays in the memory of other shared arrays, which several computations share.

    Raises
    ------
    ResourceError
        There is too little memory.
    """

    def __init__(
        self,
        specs: Mapping[str, ArraySpec],
        files: Mapping[str, MappedFile],
        parts: Mapping[str, SharedPart] | None = None,
    ) -> None:
        size = total_bytes(specs)
        try:
            descriptor = _anonymous_file(size)
            try:
                self._attach(descriptor, specs, files, parts or {})
            except BaseException:
                os.close(descriptor)
                raise
        except OSError as error:
            raise ResourceError(
                f"{size / 2**20:,.0f} MiB of shared memory are needed and cannot be had ({error.strerror}); "
                "free some memory, or use a smaller batch, network or data set"
            ) from error

    def _attach(
        self,
        descriptor: int,
        specs: Mapping[str, ArraySpec],
        files: Mapping[str, MappedFile],
        parts: Mapping[str, SharedPart],
    ) -> None:
        self._descriptor, self._specs, self.files, self.parts = descriptor, dict(specs), dict(files), dict(parts)
        self._arrays: dict[str, Array] = {}
        self._memory = mmap.mmap(descriptor, total_bytes(specs))
        offset = 0
        for name, spec in specs.items():
            self._arrays[name] = self._array_at(offset, spec)
            offset += _aligned(spec.num_bytes)
        for name, part in parts.items():
            self._arrays[name] = part.memory._array_at(part.offset, part.spec)

    def _array_at(self, offset: int, spec: ArraySpec) -> Array:
        flat = np.frombuffer(self._memory, spec.dtype, math.prod(spec.shape), offset)
        return flat.reshape(spec.shape)

    def find(self, array: Array) -> SharedPart | None:
        """Return where an array lies in this memory; None if it is elsewhere, empty, or not contiguous."""
        if not array.size or not array.flags.c_contiguous:
            return None
        memory = np.frombuffer(self._memory, np.uint8)
        offset = array.__array_interface__["data"][0] - memory.__array_interface__["data"][0]
        if not 0 <= offset <= memory.nbytes - array.nbytes:
            return None
        return SharedPart(self, offset, ArraySpec(array.shape, array.dtype.str))

    def __getitem__(self, name: str) -> Array:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __getstate__(self) -> Any:
        # Works only while a process is being started: the file is passed to it as an open descriptor.
        return multiprocessing.reduction.DupFd(self._descriptor), self._specs, self.files, self.parts

    def __setstate__(self, state: Any) -> None:
        descriptor, specs, files, parts = state
        self._attach(descriptor.detach(), specs, files, parts)

    def close(self) -> None:
        """Close the file: the arrays stay valid, but can no longer be passed to other processes."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def total_bytes(specs: Mapping[str, ArraySpec]) -> int:
    """Return the total size of all arrays in bytes, each rounded up to whole pages."""
    return max(ALIGNMENT, sum(_aligned(spec.num_bytes) for spec in specs.values()))


def _aligned(num_bytes: int) -> int:
    return -(-num_bytes // ALIGNMENT) * ALIGNMENT


def _anonymous_file(size: int) -> int:
    """Return the descriptor of a file of `size` zero bytes without a name, whose memory is allocated.

    Raises
    ------
    OSError
        There is too little memory.
    """
    descriptor = None
    if hasattr(os, "memfd_create"):
        with contextlib.suppress(OSError):  # the kernel is old, or a sandbox forbids it
            descriptor = os.memfd_create("partrain", os.MFD_CLOEXEC)
    if descriptor is not None:
        return _allocate(descriptor, size)
    if os.path.isdir(SHARED_MEMORY):
        with contextlib.suppress(OSError):  # containers often have only 64 MiB there
            return _allocate(_unnamed_file(SHARED_MEMORY), size)
    return _allocate(_unnamed_file(tempfile.gettempdir()), size)


def _unnamed_file(directory: str) -> int:
    if hasattr(os, "O_TMPFILE"):
        with contextlib.suppress(OSError):  # the file system has no files without a name
            return os.open(directory, os.O_TMPFILE | os.O_RDWR, 0o600)
    descriptor, path = tempfile.mkstemp(prefix="partrain-", dir=directory)
    os.unlink(path)
    return descriptor


def _allocate(descriptor: int, size: int) -> int:
    """Give a file its size and its memory, and return it; close it after an error."""
    try:
        os.ftruncate(descriptor, size)
        if not _has_allocated(descriptor, size):
            for offset in range(0, size, len(_ZEROS)):
                os.pwrite(descriptor, _ZEROS[: size - offset], offset)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _has_allocated(descriptor: int, size: int) -> bool:
    """Allocate the memory of a file; return whether the system has a function for that."""
    if not hasattr(os, "posix_fallocate"):
        return False
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP):
            return False
        raise
    return True
