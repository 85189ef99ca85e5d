"""Loads data sets of NumPy arrays: one .npz file, or a directory of .npy files, which are memory-mapped.

Large mapped files are read as they are needed, so a data set may be larger than memory.
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

from partrain.data.dataset import Dataset, Split, build_dataset
from partrain.data.file_access import require_file, unreadable
from partrain.data.file_fingerprint import take_fingerprint
from partrain.data.mapped_arrays import chunks, is_streamed
from partrain.data.measurement_cache import MeasurementCache
from partrain.data.split_name import SplitName
from partrain.errors import DataError, ResourceError

MAX_LABEL = 65_535

# An array, and its name in messages.
NamedArray = tuple[str, NDArray[Any]]

_KEYS = ("train_images", "train_labels", "test_images", "test_labels")
_KERAS_KEYS = ("x_train", "y_train", "x_test", "y_test")
# Names of optional arrays.
CLASS_NAMES, NUM_VALIDATION = "class_names", "validation_examples"
_OPTIONAL = (CLASS_NAMES, NUM_VALIDATION)
# A directory that contains one of these files is a data set of arrays.
FILE_NAMES = tuple(f"{key}.npy" for key in _KEYS)
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
    """Load NumPy arrays as the data set "arrays".

    Images are uint8 or float32, (N,H,W) or (N,C,H,W), C-contiguous; labels are integers from 0 to
    `MAX_LABEL`, (N,). The classes are "0" up to the largest label.

    Parameters
    ----------
    path : an .npz file with the arrays train_images, train_labels, test_images, test_labels (or Keras'
        x_train, y_train, x_test, y_test), or a directory with the first four as .npy files. Images from a
        directory stay `numpy.memmap`. Optional arrays: class_names (strings, a name for each label) and
        validation_examples (the number of examples at the end of the training examples that are for validation).

    Raises
    ------
    DataError
        The files cannot be read, or an array is missing or not as described.
    ResourceError
        The arrays of an .npz file do not fit into memory.
    """
    path = Path(os.path.expanduser(path))
    arrays = _map_directory(path) if os.path.isdir(path) else _read_npz(path)
    measurements = None
    if any(is_streamed(array) for _, array in arrays.values()):
        # All four files: the digest also depends on the labels.
        measurements = MeasurementCache([take_fingerprint(path / f"{key}.npy") for key in _KEYS])
    return dataset_of_arrays("arrays", str(path.resolve()), arrays, measurements)


def dataset_of_arrays(
    name: str, source: str, arrays: Mapping[str, NamedArray], measurements: MeasurementCache | None = None
) -> Dataset:
    """Check the arrays train_images, train_labels, test_images and test_labels, and make a data set of them.

    Parameters
    ----------
    name, source : the name and the source of the data set.
    arrays : the four arrays with their names in messages; optionally `CLASS_NAMES` and `NUM_VALIDATION`.
    measurements : cache of measurements, if the files are large.

    Raises
    ------
    DataError
        An array is not as `load_arrays` describes it.
    """
    splits = {
        split: split_of_arrays(arrays[f"{split}_images"], arrays[f"{split}_labels"], measurements, f"{split}_images")
        for split in (SplitName.TRAIN, SplitName.TEST)
    }
    class_names = _class_names(arrays[CLASS_NAMES]) if CLASS_NAMES in arrays else None
    num_validation = None
    if NUM_VALIDATION in arrays:
        num_validation = _num_validation(arrays[NUM_VALIDATION], splits[SplitName.TRAIN].size)
    return build_dataset(name, source, splits, class_names, num_validation, measurements)


def split_of_arrays(
    images: NamedArray, labels: NamedArray, measurements: MeasurementCache | None = None, key: str = ""
) -> Split:
    """Check images and labels, and make a split of them.

    Parameters
    ----------
    images, labels : the arrays, with their names in messages.
    measurements, key : cache of measurements, if the files are large, and the key of these images in it.

    Raises
    ------
    DataError
        An array is not as `load_arrays` describes it.
    """
    split = _checked_split(images, labels)
    if measurements is None:
        _require_finite(*images)
    else:
        measurements.get(f"{key} are finite", lambda: _require_finite(*images))
    return split


def _class_names(named: NamedArray) -> tuple[str, ...]:
    where, array = named
    if array.dtype.kind != "U" or array.ndim != 1 or not array.size:
        raise DataError(
            f"{where}: has dtype {array.dtype} and shape {array.shape}, expected strings of shape (classes,): "
            "the name of each label."
        )
    names = tuple(map(str, array))
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{where}: the name {twice!r} occurs twice. Give each class its own name.")
    return names


def _num_validation(named: NamedArray, num_train: int) -> int:
    where, array = named
    if array.dtype.kind not in "iu" or array.shape != () or not 0 <= int(array) < num_train:
        raise DataError(
            f"{where}: is {array.dtype} {array.shape}, expected one whole number from 0 to {num_train - 1:,}: the "
            "number of examples at the end of train_images that are for validation."
        )
    return int(array)


def _map_directory(directory: Path) -> dict[str, NamedArray]:
    """Map the four .npy files, and the optional ones that exist."""
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        raise unreadable(directory, error) from None
    missing = [f"{key}.npy" for key in _KEYS if f"{key}.npy" not in names]
    if missing:
        raise DataError(
            f"{directory}: contains no {', '.join(missing)}, but {_listed(names)}. Save each array there with "
            "numpy.save."
        )
    paths = {key: directory / f"{key}.npy" for key in (*_KEYS, *_OPTIONAL) if f"{key}.npy" in names}
    return {key: (str(path), map_array(path)) for key, path in paths.items()}


def map_array(path: Path) -> NDArray[Any]:
    """Map the array in an .npy file without reading its content.

    Raises
    ------
    DataError
        The file cannot be read, is damaged, or contains Python objects.
    """
    require_file(path)
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except OSError as error:
        raise unreadable(path, error) from None
    except _DAMAGED as error:
        raise _unusable(str(path), error) from None


def _read_npz(path: Path) -> dict[str, NamedArray]:
    """Read the four arrays of an .npz file, under the names in `_KEYS`, and the optional ones."""
    require_file(path)
    arrays: dict[str, NamedArray] = {}
    where = str(path)
    try:
        # Not numpy.load: it takes any other file for a pickle, and leaves damaged archives open.
        with open(path, "rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as archive:
            keys = dict(zip(_KEYS, _choose_keys(path, archive), strict=True))
            for name, key in (keys | {key: key for key in _OPTIONAL if key in archive}).items():
                where = f"{path}: {key}"
                array = archive[key]
                if not isinstance(array, np.ndarray):  # NumPy returns the bytes of any other file
                    raise ValueError("no array")
                arrays[name] = (where, array)
    except OSError as error:
        raise unreadable(path, error) from None
    except MemoryError:
        raise ResourceError(
            f"{where}: does not fit into memory. Save the arrays as .npy files in a directory: they are memory-mapped."
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
    # NumPy has two messages for arrays of Python objects, one for reading and one for mapping.
    if "Object arrays cannot be loaded" in str(error) or "Python objects in dtype" in str(error):
        return DataError(
            f"{where}: is an array of Python objects, which is not loaded because it could run any program. "
            "Save it as an array of numbers, for example with .astype(numpy.uint8)."
        )
    reason = " ".join(str(error).split())  # NumPy quotes headers with their padding
    return DataError(f"{where}: is damaged or not a NumPy file ({reason}). Save it with numpy.save or numpy.savez.")


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
        raise DataError(f"{images_name}: is not C-contiguous. Save it in C order: numpy.ascontiguousarray.")
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1:
        raise DataError(
            f"{labels_name}: has dtype {labels.dtype} and shape {labels.shape}, expected integers of shape "
            "(examples,): the number of each example's class."
        )
    if len(images) != len(labels):
        raise DataError(
            f"{images_name} contains {len(images):,} images, but {labels_name} contains {len(labels):,} labels. "
            "Give each image one label."
        )
    smallest, largest = int(labels.min()), int(labels.max())
    if smallest < 0 or largest > MAX_LABEL:
        raise DataError(
            f"{labels_name}: has labels from {smallest} to {largest}, expected 0 to {MAX_LABEL:,}. "
            "Number the classes from 0."
        )
    if images.ndim == 3:
        num_images, num_rows, num_columns = images.shape
        images = images.reshape(num_images, 1, num_rows, num_columns)  # a memmap stays a memmap
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
                f"or remove example {index[0]}."
            )
        num_checked += chunk.size
