"""Writes any data set as NumPy arrays: one .npz file, or a directory of .npy files that can be memory-mapped."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.data.array_files import CLASS_NAMES, NUM_VALIDATION
from partrain.data.dataset import Dataset
from partrain.data.mapped_arrays import chunks
from partrain.errors import ConfigError, ResourceError
from partrain.store.output_files import require_output, require_output_file
from partrain.system.durable_files import make_folders, sync_folder

FILE_SUFFIX = ".npz"


def export_arrays(dataset: Dataset, to: Path) -> Path:
    """Write a data set as arrays for `data.name: arrays`; training on them is bit for bit the same.

    Parameters
    ----------
    dataset : the data set to write, with the splits "train", "validation" and "test".
    to : an .npz file, which is replaced if it exists, or a new or empty directory.

    Returns
    -------
    The path `to`.

    Raises
    ------
    ConfigError
        The directory is not empty, or `to` is a device or a run's file (see `require_output_file`).
    ResourceError
        The arrays cannot be written.
    """
    real = require_pack_target(to)
    arrays = _arrays(dataset)
    try:
        make_folders(real.parent)
        (_write_file if to.suffix == FILE_SUFFIX else _write_directory)(arrays, real)
        sync_folder(real.parent)
    except OSError as error:
        raise ResourceError(f"{to}: cannot be written: {error.strerror or error}") from None
    return to


def require_pack_target(to: Path) -> Path:
    """Check the path to write arrays to; return it with all links resolved.

    Raises
    ------
    ConfigError
        As `export_arrays`.
    """
    if to.suffix == FILE_SUFFIX:
        return require_output_file(to, "--to")
    real = require_output(to, "--to")
    if os.path.lexists(real) and not (real.is_dir() and not any(real.iterdir())):
        raise ConfigError(f"{to}: exists already. Give a new or empty directory, or a file that ends in {FILE_SUFFIX}.")
    return real


def _arrays(dataset: Dataset) -> dict[str, tuple[NDArray[Any], ...]]:
    """Return the arrays under the names that `load_arrays` expects, each as one or two parts."""
    train, validation, test = dataset.train, dataset.validation, dataset.test
    return {
        "train_images": (train.images, validation.images),
        "train_labels": (train.labels, validation.labels),
        "test_images": (test.images,),
        "test_labels": (test.labels,),
        CLASS_NAMES: (np.array(dataset.class_names),),
        NUM_VALIDATION: (np.array(validation.size),),
    }


def _write_file(arrays: Mapping[str, Sequence[NDArray[Any]]], to: Path) -> None:
    temporary = to.with_name(f".{to.name}.{os.getpid()}.tmp")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with os.fdopen(os.open(temporary, flags, 0o666), "wb") as file:
            # Not numpy.savez, which writes the time: equal arrays would give different files.
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                for name, parts in arrays.items():
                    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                        for content in _npy(parts):
                            member.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, to)
    finally:
        temporary.unlink(missing_ok=True)


def _write_directory(arrays: Mapping[str, Sequence[NDArray[Any]]], to: Path) -> None:
    temporary = Path(tempfile.mkdtemp(prefix=f".{to.name}.", suffix=".tmp", dir=to.parent))
    try:
        temporary.chmod(0o777 & ~_umask())
        for name, parts in arrays.items():
            with open(temporary / f"{name}.npy", "wb") as file:
                for content in _npy(parts):
                    file.write(content)
                file.flush()
                os.fsync(file.fileno())
        os.rename(temporary, to)  # also replaces an empty directory
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _npy(parts: Sequence[NDArray[Any]]) -> Iterator[Any]:
    """Yield the content of the .npy file of an array that consists of consecutive parts."""
    shape = parts[0].shape
    if len(parts) > 1:
        shape = (sum(map(len, parts)), *shape[1:])
    fields = {"descr": np.lib.format.dtype_to_descr(parts[0].dtype), "fortran_order": False, "shape": shape}
    header = _Parts()
    np.lib.format.write_array_header_1_0(header, fields)
    yield from header.parts
    for part in parts:
        for chunk in chunks(part):
            yield chunk.view(np.uint8).data


class _Parts:
    """A file that collects what is written."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def write(self, part: bytes) -> None:
        self.parts.append(part)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
