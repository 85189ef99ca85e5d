"""Loads data sets of NumPy arrays: one .npz file, or a directory of .npy files, which are memory-mapped.

Large mapped files are read as they are needed, so a data set may be larger than memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from partrain.data.array_files import CLASS_NAMES, KEYS, NUM_VALIDATION, VALIDATION_KEYS, NamedArray, read_arrays
from partrain.data.dataset import Dataset, build_dataset
from partrain.data.file_fingerprint import take_fingerprint
from partrain.data.image_arrays import MAX_LABEL, Layout, split_of_arrays
from partrain.data.mapped_arrays import is_streamed
from partrain.data.measurement_cache import MeasurementCache
from partrain.data.split_name import SplitName
from partrain.errors import DataError


def load_arrays(
    path: str | Path,
    layout: Layout = None,
    *,
    with_validation: bool = True,
    say: Callable[[str], None] = lambda text: None,
) -> Dataset:
    """Load NumPy arrays as the data set "arrays".

    Images are uint8 or float32, or other floating-point numbers that float32 represents exactly; (N,H,W) or (N,C,H,W),
    C-contiguous. Labels are integers from 0 to `MAX_LABEL`, (N,) or (N,1). The classes are "0" up to the largest label.

    Parameters
    ----------
    path : an .npz file with the arrays train_images, train_labels, test_images, test_labels (or Keras'
        x_train, y_train, x_test, y_test), or a directory with the first four as .npy files. Images from a
        directory stay `numpy.memmap`. Optional arrays: class_names (strings, a name for each label), and either
        val_images and val_labels (or x_val and y_val), or validation_examples (the number of examples at the end of
        the training examples that are for validation).
    layout : the order of the axes of images with channels; "channels_last" for (N,H,W,C).
    with_validation : use val_images and val_labels; otherwise they are not read, and `say` is called with a line.

    Raises
    ------
    DataError
        The files cannot be read, or an array is missing or not as described.
    ResourceError
        The arrays of an .npz file do not fit into memory.
    """
    path = Path(os.path.expanduser(path))
    arrays = read_arrays(path, with_validation=with_validation, say=say)
    measurements = None
    if any(is_streamed(array) for _, array in arrays.values()):
        # The files of labels as well: the digest also depends on them.
        files = [arrays[key][0] for key in (*KEYS, *VALIDATION_KEYS) if key in arrays]
        variant = "channels_last" if layout == "channels_last" else ""
        measurements = MeasurementCache([take_fingerprint(Path(file)) for file in files], variant)
    return dataset_of_arrays("arrays", str(path.resolve()), arrays, layout, measurements)


def dataset_of_arrays(
    name: str,
    source: str,
    arrays: Mapping[str, NamedArray],
    layout: Layout = None,
    measurements: MeasurementCache | None = None,
) -> Dataset:
    """Check the arrays train_images, train_labels, test_images and test_labels, and make a data set of them.

    Parameters
    ----------
    name, source : the name and the source of the data set.
    arrays : the four arrays with their names in messages; optionally `CLASS_NAMES`, and `NUM_VALIDATION` or
        `VALIDATION_KEYS`.
    layout : the order of the axes of images with channels.
    measurements : cache of measurements, if the files are large.

    Raises
    ------
    DataError
        An array is not as `load_arrays` describes it.
    """
    splits = {
        split: split_of_arrays(
            arrays[f"{split}_images"], arrays[f"{split}_labels"], layout, measurements, f"{split}_images"
        )
        for split in (SplitName.TRAIN, SplitName.TEST, SplitName.VALIDATION)
        if f"{split}_images" in arrays
    }
    class_names = _class_names(arrays[CLASS_NAMES]) if CLASS_NAMES in arrays else None
    num_validation = None
    if NUM_VALIDATION in arrays:
        num_validation = _num_validation(arrays[NUM_VALIDATION], splits[SplitName.TRAIN].size)
    return build_dataset(name, source, splits, class_names, num_validation, measurements)


def _class_names(named: NamedArray) -> tuple[str, ...]:
    where, array = named
    if array.dtype.kind != "U" or array.ndim != 1 or not 0 < array.size <= MAX_LABEL + 1:
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
