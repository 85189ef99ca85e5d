"""Reads NumPy files: an .npz file into memory, .npy files of a directory as memory-mapped arrays."""

from __future__ import annotations

import os
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.data.file_access import require_file, unreadable
from partrain.errors import DataError, ResourceError
from partrain.system.memory_limits import require_memory

# An array, and its name in messages.
NamedArray = tuple[str, NDArray[Any]]

# The arrays that every data set has, in partrain's names and in Keras'.
KEYS = ("train_images", "train_labels", "test_images", "test_labels")
_KERAS_KEYS = ("x_train", "y_train", "x_test", "y_test")
# Names of optional arrays.
CLASS_NAMES, NUM_VALIDATION = "class_names", "validation_examples"
# Validation examples in arrays of their own: the names here, and those that files have (MedMNIST's are the first).
VALIDATION_KEYS = ("validation_images", "validation_labels")
_VALIDATION_PAIRS = (("val_images", "val_labels"), VALIDATION_KEYS, ("x_val", "y_val"))

_SAVE_AS_FILES = "Save the arrays as .npy files in a directory: they are memory-mapped."
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
    OverflowError,  # a shape beyond the integers of C
    TypeError,  # a shape with True in it
)
# NumPy quotes the header, which may be long.
_MAX_REASON_CHARACTERS = 200


def read_arrays(
    path: Path, *, with_validation: bool = True, say: Callable[[str], None] = lambda text: None
) -> dict[str, NamedArray]:
    """Return the arrays of an .npz file or of a directory, under the names in `KEYS`, and the optional ones.

    Parameters
    ----------
    path : the file or the directory.
    with_validation : also return `VALIDATION_KEYS`, if there are validation examples in arrays of their own.
    say : called with a line if they are there, and not to be returned.

    Raises
    ------
    DataError
        The files cannot be read, are damaged, or lack an array.
    ResourceError
        The arrays of an .npz file do not fit into memory.
    """
    unused = None if with_validation else say
    return _map_directory(path, unused) if os.path.isdir(path) else _read_npz(path, unused)


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


def _map_directory(directory: Path, unused: Callable[[str], None] | None) -> dict[str, NamedArray]:
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        raise unreadable(directory, error) from None
    missing = [f"{key}.npy" for key in KEYS if f"{key}.npy" not in names]
    if missing:
        raise DataError(
            f"{directory}: contains no {', '.join(missing)}, but {_listed(names)}. Save each array there with "
            "numpy.save."
        )
    available = {name.removesuffix(".npy") for name in names if name.endswith(".npy")}
    keys = dict(zip(KEYS, KEYS, strict=True)) | dict(_optional_keys(directory, available, unused))
    paths = {name: directory / f"{key}.npy" for name, key in keys.items()}
    return {name: (str(path), map_array(path)) for name, path in paths.items()}


def _read_npz(path: Path, unused: Callable[[str], None] | None) -> dict[str, NamedArray]:
    require_file(path)
    arrays: dict[str, NamedArray] = {}
    where = str(path)
    try:
        # Not numpy.load: it takes any other file for a pickle, and leaves damaged archives open.
        with open(path, "rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as archive:
            keys = dict(zip(KEYS, _choose_keys(path, archive), strict=True))
            keys |= _optional_keys(path, archive, unused)
            _require_room(path, archive, keys.values())
            for name, key in keys.items():
                where = f"{path}: {key}"
                array = archive[key]
                if not isinstance(array, np.ndarray):  # NumPy returns the bytes of any other file
                    raise ValueError("no array")
                arrays[name] = (where, array)
    except OSError as error:
        raise unreadable(path, error) from None
    except MemoryError:
        raise ResourceError(f"{where}: does not fit into memory. {_SAVE_AS_FILES}") from None
    except _DAMAGED as error:
        raise _unusable(where, error) from None
    return arrays


def _require_room(path: Path, archive: np.lib.npyio.NpzFile, keys: Collection[str]) -> None:
    """Check that arrays of an archive fit into memory: their sizes are in its directory, and none inflates to more."""
    assert archive.zip is not None
    sizes = {info.filename.removesuffix(".npy"): info.file_size for info in archive.zip.infolist()}
    require_memory(sum(sizes[key] for key in keys), f"{path}: {', '.join(keys)}", _SAVE_AS_FILES)


def _choose_keys(path: Path, available: Collection[str]) -> tuple[str, ...]:
    for keys in (KEYS, _KERAS_KEYS):
        if all(key in available for key in keys):
            return keys
    raise DataError(
        f"{path}: expected the arrays {', '.join(KEYS)} (or {', '.join(_KERAS_KEYS)}), found "
        f"{_listed(sorted(available))}. Save all four with numpy.savez under these names."
    )


def _optional_keys(
    path: Path, available: Collection[str], unused: Callable[[str], None] | None
) -> Iterator[tuple[str, str]]:
    """Yield the name of each optional array, and its key in the file or directory.

    Parameters
    ----------
    unused : arrays of validation examples are left out, and this is called with a line about them; None: they are not.
    """
    if CLASS_NAMES in available:
        yield CLASS_NAMES, CLASS_NAMES
    if NUM_VALIDATION in available:
        yield NUM_VALIDATION, NUM_VALIDATION
    pairs = [pair for pair in _VALIDATION_PAIRS if any(key in available for key in pair)]
    if not pairs:
        return
    found = [key for pair in pairs for key in pair if key in available]
    if unused is not None:
        unused(f"{path}: {', '.join(found)} are not used: data.validation_examples divides the training examples")
        return
    if len(found) != 2 or len(pairs) != 1 or NUM_VALIDATION in available:
        also = [NUM_VALIDATION] if NUM_VALIDATION in available else []
        raise DataError(
            f"{path}: contains {', '.join(found + also)}: expected two arrays for validation, images and labels (such "
            f"as {' and '.join(_VALIDATION_PAIRS[0])}), or {NUM_VALIDATION} in their place. Remove or add what is not "
            "right, or set data.validation_examples: these arrays are then not read."
        )
    yield from zip(VALIDATION_KEYS, pairs[0], strict=True)


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
    if len(reason) > _MAX_REASON_CHARACTERS:
        reason = f"{reason[:_MAX_REASON_CHARACTERS]}…"
    return DataError(f"{where}: is damaged or not a NumPy file ({reason}). Save it with numpy.save or numpy.savez.")
