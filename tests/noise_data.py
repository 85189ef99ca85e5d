"""Data sets of noise, in IDX files."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def idx_bytes(array: NDArray[Any]) -> bytes:
    """Return the content of an IDX file, written from the description of the format."""
    header = bytes((0, 0, 8, array.ndim)) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_idx(path: Path, array: NDArray[np.uint8]) -> Path:
    """Write an IDX file; gzipped if its name says so."""
    content = idx_bytes(array)
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


def write_idx_folder(
    folder: Path,
    train: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    test: tuple[NDArray[np.uint8], NDArray[np.uint8]],
) -> Path:
    """Write images and labels of two splits under MNIST's file names."""
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, (images, labels) in (("train", train), ("t10k", test)):
        write_idx(folder / f"{prefix}-images-idx3-ubyte", images)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", labels)
    return folder


def noise_examples(num_examples: int, seed: int = 0, size: int = 28) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return images of noise, and labels; the first ten labels are 0 to 9."""
    rng = np.random.Generator(np.random.Philox(key=seed))
    images = rng.integers(0, 256, (num_examples, size, size), dtype=np.uint8)
    labels = rng.integers(0, 10, num_examples, dtype=np.uint8)
    labels[:10] = np.arange(10)[:num_examples]
    return images, labels
