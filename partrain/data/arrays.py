"""Data sets of the user's own as NumPy arrays: one .npz file, or a folder of .npy files that is mapped.

Mapped images are read from the file as they are needed, so that a data set larger than memory trains.
"""

from __future__ import annotations

import os
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.data.dataset import Dataset, Split, build_dataset, chunks, require_file, unreadable
from partrain.errors import DataError, ResourceError

MAX_LABEL = 65_535

# What messages call it, and the array.
NamedArray = tuple[str, NDArray[Any]]

_KEYS = ("train_images", "train_labels", "test_images", "test_labels")
_KERAS_KEYS = ("x_train", "y_train", "x_test", "y_test")
_DAMAGED = (
    ValueError,
    EOFError,
    KeyError,
    zlib.error,
    zipfile.BadZipFile,
    NotImplementedError,  # an unknown compression
    RuntimeError,  # encryption
    tokenize.TokenError,  # NumPy gives a header that it cannot parse to Python's tokenizer
    SyntaxError,
)


def load_arrays(path: str | Path) -> Dataset:
    """Load a data set of NumPy arrays, as the data set "arrays".

    Images are uint8 or float32, (N,H,W) or (N,C,H,W), C-contiguous; labels are integers from 0 to
    `MAX_LABEL`, (N,). The classes are "0" up to the largest label.

    Parameters
    ----------
    path : an .npz file with the arrays train_images, train_labels, test_images, test_labels (or Keras'
        x_train, y_train, x_test, y_test), or a folder with the first four as .npy files. Images from a
        folder stay `numpy.memmap`.

    Raises
    ------
    DataError
        If the files cannot be read, or an array is missing or not as described.
    ResourceError
        If the arrays of an .npz file do not fit into memory.
    """
    path = Path(os.path.expanduser(path))
    train_images, train_labels, test_images, test_labels = _map_folder(path) if os.path.isdir(path) else _read_npz(path)
    return build_dataset(
        "arrays",
        str(path.resolve()),
        _checked_split(train_images, train_labels),
        _checked_split(test_images, test_labels),
    )


def _map_folder(folder: Path) -> list[NamedArray]:
    """Map the four .npy files, in the order of `_KEYS`."""
    try:
        there = sorted(os.listdir(folder))
    except OSError as error:
        raise unreadable(folder, error) from None
    missing = [f"{key}.npy" for key in _KEYS if f"{key}.npy" not in there]
    if missing:
        raise DataError(
            f"{folder}: holds no {', '.join(missing)}, but {_listed(there)}. Save each array there with numpy.save."
        )
    arrays: list[NamedArray] = []
    for key in _KEYS:
        path = folder / f"{key}.npy"
        arrays.append((str(path), map_array(path)))
    return arrays


def map_array(path: Path) -> NDArray[Any]:
    """Map the array in an .npy file; of its content nothing is read yet.

    Raises
    ------
    DataError
        If the file cannot be read, is damaged, or holds Python objects.
    """
    require_file(path)
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except OSError as error:
        raise unreadable(path, error) from None
    except _DAMAGED as error:
        raise _unusable(str(path), error) from None


def _read_npz(path: Path) -> list[NamedArray]:
    """Read the four arrays of an .npz file, in the order of `_KEYS`."""
    require_file(path)
    arrays: list[NamedArray] = []
    where = str(path)
    try:
        # Not numpy.load, which takes what is no zip archive for a pickle, and leaves damaged ones open.
        with open(path, "rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as archive:
            for key in _choose_keys(path, archive):
                where = f"{path}: {key}"
                array = archive[key]
                if not isinstance(array, np.ndarray):  # NumPy returns the bytes of any other file
                    raise ValueError("no array")
                arrays.append((where, array))
    except OSError as error:
        raise unreadable(path, error) from None
    except MemoryError:
        raise ResourceError(
            f"{where}: does not fit into memory. Save the arrays as .npy files in a folder: they are mapped."
        ) from None
    except _DAMAGED as error:
        raise _unusable(where, error) from None
    return arrays


def _choose_keys(path: Path, archive: Mapping[str, Any]) -> tuple[str, ...]:
    for keys in (_KEYS, _KERAS_KEYS):
        if all(key in archive for key in keys):
            return keys
    raise DataError(
        f"{path}: expected the arrays {', '.join(_KEYS)} (or {', '.join(_KERAS_KEYS)}), found "
        f"{_listed(sorted(archive))}. Save all four with numpy.savez under these names."
    )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:10]) + (" ..." if len(names) > 10 else "") if names else "nothing"


def _unusable(where: str, error: Exception) -> DataError:
    # NumPy refuses arrays of Python objects in two wordings, for reading and for mapping.
    if "Object arrays cannot be loaded" in str(error) or "Python objects in dtype" in str(error):
        return DataError(
            f"{where}: is an array of Python objects, which is not loaded, since it could run any program. "
            "Save it as an array of numbers, for example with .astype(numpy.uint8)."
        )
    what = " ".join(str(error).split())  # NumPy quotes headers with all their padding
    return DataError(f"{where}: is damaged or not NumPy's ({what}). Save it again with numpy.save or numpy.savez.")


def _checked_split(named_images: NamedArray, named_labels: NamedArray) -> Split:
    images_name, images = named_images
    labels_name, labels = named_labels
    if images.dtype not in (np.uint8, np.float32):
        raise DataError(f"{images_name}: has dtype {images.dtype}, expected uint8 or float32. Convert it with .astype.")
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise DataError(
            f"{images_name}: has shape {images.shape}, expected (examples, rows, columns) or (examples, "
            "channels, rows, columns), none of them 0."
        )
    if not images.flags.c_contiguous:
        raise DataError(f"{images_name}: is not C-contiguous. Save it in the order of rows: numpy.ascontiguousarray.")
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1:
        raise DataError(
            f"{labels_name}: has dtype {labels.dtype} and shape {labels.shape}, expected integers of shape "
            "(examples,): the number of each example's class."
        )
    if len(images) != len(labels):
        raise DataError(
            f"{images_name} holds {len(images):,} images, but {labels_name} holds {len(labels):,} labels. "
            "Give each image one label."
        )
    smallest, largest = int(labels.min()), int(labels.max())
    if smallest < 0 or largest > MAX_LABEL:
        raise DataError(
            f"{labels_name}: has labels from {smallest} to {largest}, expected 0 to {MAX_LABEL:,}. "
            "Number the classes from 0 on."
        )
    _require_finite(images_name, images)
    if images.ndim == 3:
        num_images, num_rows, num_columns = images.shape
        images = images.reshape(num_images, 1, num_rows, num_columns)  # of a memmap, again a memmap
    return Split(images, np.array(labels, np.int64))


def _require_finite(name: str, images: NDArray[Any]) -> None:
    if images.dtype != np.float32:
        return
    num_checked = 0
    for chunk in chunks(images):
        finite = np.isfinite(chunk)
        if not finite.all():
            position = num_checked + int(np.argmin(finite))
            index = tuple(int(i) for i in np.unravel_index(position, images.shape))
            raise DataError(
                f"{name}: the value at {index} is {images[index]}, expected finite numbers. Correct "
                f"or leave out example {index[0]}."
            )
        num_checked += chunk.size
