"""Gives a worker the images of a split, from shared memory or from a file that is too large for memory.

The file is read, not mapped. The pages of a mapped file count as memory of each process, and a process that reads
past the end of a truncated file dies of a bus error. Reading an image of 3 kB from the page cache takes about two
microseconds.
"""

from __future__ import annotations

import os
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from partrain.data.split_name import SplitName
from partrain.system.shared_arrays import MappedFile, SharedArrays

Images = NDArray[Any]


class ExampleSource(Protocol):
    """Provides the images of a split."""

    def take(self, indices_N: NDArray[np.int64]) -> tuple[Images, NDArray[np.int64]]:
        """Return an array of images and the rows in it of the examples `indices_N`; valid until the next call."""


class SharedImages:
    """Images in shared memory."""

    def __init__(self, images_MCHW: Images) -> None:
        self._images_MCHW = images_MCHW

    def take(self, indices_N: NDArray[np.int64]) -> tuple[Images, NDArray[np.int64]]:
        """See `ExampleSource`."""
        return self._images_MCHW, indices_N


class StreamedImages:
    """Images in a file, which are read into a buffer when they are needed.

    Parameters
    ----------
    file : the file, and the position and shape of the images in it.
    capacity : the maximum number of images per call of `take`.
    """

    def __init__(self, file: MappedFile, capacity: int) -> None:
        self._path, self._offset = file.path, file.offset
        self._descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
        _, C, H, W = file.shape
        self._buffer_NCHW = np.empty((capacity, C, H, W), file.dtype)
        self._buffer_NHWC = np.empty((capacity, H, W, C), file.dtype) if file.channels_last else None
        self._image_bytes = self._buffer_NCHW[0].nbytes
        self._places = np.arange(capacity)
        # Created once, because creating a view takes longer than reading an image.
        read_into = self._buffer_NCHW if self._buffer_NHWC is None else self._buffer_NHWC
        self._memory = read_into.reshape(-1).view(np.uint8).data
        self._image_memory = [self._memory[k * self._image_bytes :][: self._image_bytes] for k in range(capacity)]

    def take(self, indices_N: NDArray[np.int64]) -> tuple[Images, NDArray[np.int64]]:
        """See `ExampleSource`.

        Raises
        ------
        OSError
            The file ends before the image, or cannot be read.
        """
        N, indices = len(indices_N), indices_N.tolist()
        if indices == list(range(indices[0], indices[0] + N)):  # in an evaluation
            self._read(indices[0], self._memory[: N * self._image_bytes])
        else:
            for index, memory in zip(indices, self._image_memory, strict=False):
                self._read(index, memory)
        if self._buffer_NHWC is not None:
            self._buffer_NCHW[:N] = self._buffer_NHWC[:N].transpose(0, 3, 1, 2)
        return self._buffer_NCHW, self._places[:N]

    def _read(self, index: int, memory: memoryview) -> None:
        """Read the image at `index` and the following ones until `memory` is full."""
        start = self._offset + index * self._image_bytes
        try:
            while (num_read := os.preadv(self._descriptor, [memory], start)) < len(memory):
                if not num_read:
                    raise EOFError
                memory, start = memory[num_read:], start + num_read
        except EOFError:
            reason = f"ends before example {index}; the file was truncated while it was used"
            raise OSError(f"{self._path}: {reason}") from None
        except OSError as error:
            raise OSError(f"{self._path}: cannot be read: {error.strerror}") from error

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


def example_source(arrays: SharedArrays, split: SplitName, capacity: int) -> ExampleSource:
    """Return the images of a split, of which at most `capacity` are taken at once."""
    name = f"{split}.images"
    if name in arrays.files:
        return StreamedImages(arrays.files[name], capacity)
    return SharedImages(arrays[name])


def pixel_type(arrays: SharedArrays, split: SplitName) -> np.dtype[Any]:
    """Return the type of a split's pixels."""
    name = f"{split}.images"
    return np.dtype(arrays.files[name].dtype if name in arrays.files else arrays[name].dtype)
