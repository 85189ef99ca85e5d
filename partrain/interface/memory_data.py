"""Data sets made from arrays in memory, for the Python API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from partrain.data.array_files import CLASS_NAMES, NUM_VALIDATION
from partrain.data.arrays import dataset_of_arrays
from partrain.data.dataset import Dataset, build_dataset
from partrain.data.image_arrays import Layout, split_of_arrays
from partrain.data.image_directory import split_by_name
from partrain.data.split_name import SplitName
from partrain.errors import DataError

# Images and labels.
Examples = tuple[ArrayLike, ArrayLike]

# The name of data sets in memory, in the configuration and in messages.
IN_MEMORY = "memory"


def training_data(
    data: Examples, test: Examples | None, class_names: Sequence[str] | None, layout: Layout = None
) -> Dataset:
    """Return a data set to train on.

    Parameters
    ----------
    data : images and labels to train on and to validate with; without `test`, also to test with.
    test : images and labels to test with.
    class_names : the name of each class; by default its number.
    layout : the order of the axes of the images.

    Raises
    ------
    DataError
        The arrays cannot be used.
    """
    images, labels = _as_arrays(data, "data")
    if test is not None:
        test_images, test_labels = _as_arrays(test, "test")
        arrays = _named_arrays(images, labels, "data", test_images, test_labels, "test")
    else:
        indices = _split_indices(images, labels)
        # Validation examples come after the training examples.
        train = np.concatenate([indices["train"], indices["validation"]])
        held_out = indices["test"]
        arrays = _named_arrays(images[train], labels[train], "data", images[held_out], labels[held_out], "data")
        arrays[NUM_VALIDATION] = ("data", np.array(len(indices["validation"])))
    if class_names is not None:
        arrays[CLASS_NAMES] = ("class_names", np.array(class_names))
    return dataset_of_arrays(IN_MEMORY, "arrays in memory", arrays, layout)


def untested_data(
    images: NDArray[Any], labels: NDArray[np.int64], class_names: Sequence[str], layout: Layout = None
) -> Dataset:
    """Return a data set to train on, whose test split is empty.

    Parameters
    ----------
    images, labels, layout : as for `training_data`.
    class_names : the name of each class.

    Raises
    ------
    DataError
        The arrays cannot be used.
    """
    train = split_of_arrays(("the images", images), ("the labels", labels), layout)
    splits = {SplitName.TRAIN: train, SplitName.TEST: train.part(0, 0)}
    return build_dataset(IN_MEMORY, "arrays in memory", splits, tuple(class_names))


def evaluation_data(data: Examples, class_names: Sequence[str], layout: Layout = None) -> Dataset:
    """Return a data set to evaluate: all examples are its test split.

    Parameters
    ----------
    data : images and labels.
    class_names : the names of the classes that the network was trained on.
    layout : the order of the axes of the images.

    Raises
    ------
    DataError
        The arrays cannot be used.
    """
    images, labels = _as_arrays(data, "data")
    split = split_of_arrays(("the images of data", images), ("the labels of data", labels), layout)
    return build_dataset(IN_MEMORY, "arrays in memory", {SplitName.TEST: split}, tuple(class_names))


def array_to_classify(images: ArrayLike, shape: tuple[int, ...], layout: Layout = None) -> NDArray[Any]:
    """Return images as an array (N,C,H,W).

    Parameters
    ----------
    images : (N,C,H,W), or (N,H,W,C) with the layout "channels_last"; with one channel also (N,H,W).
    shape : (C,H,W) of the network's images.
    layout : the order of the axes of the images.

    Raises
    ------
    DataError
        The images have another shape.
    """
    array = np.asarray(images)
    C, H, W = shape
    full = (H, W, C) if layout == "channels_last" else (C, H, W)
    accepted = [full, (H, W)] if C == 1 else [full]
    if array.ndim == 0 or array.shape[1:] not in accepted:
        expected = " or ".join(f"(N, {', '.join(map(str, form))})" for form in accepted)
        hint = " Their channels are last: give layout='channels_last'." if array.shape[1:] == (H, W, C) else ""
        raise DataError(f"images: have shape {array.shape}, expected {expected}.{hint}")
    if array.ndim == 4 and layout == "channels_last":
        array = np.moveaxis(array, 3, 1)
    return array.reshape(len(array), C, H, W)


def _split_indices(images: NDArray[Any], labels: NDArray[Any]) -> dict[str, NDArray[np.int64]]:
    """Divide examples into splits by a hash of their index, so that appended examples move no other."""
    if images.ndim == 0 or labels.ndim == 0 or len(images) != len(labels):
        raise DataError(f"data: there are images of shape {images.shape}, and labels of shape {labels.shape}.")
    splits = np.array([split_by_name(str(index)) for index in range(len(images))])
    indices = {split: np.flatnonzero(splits == split) for split in ("train", "validation", "test")}
    if not indices["train"].size or not indices["test"].size:
        raise DataError(f"data: {len(images)} examples are too few to hold some out for testing. Give test=…")
    return indices


def _named_arrays(
    train_images: NDArray[Any],
    train_labels: NDArray[Any],
    train_name: str,
    test_images: NDArray[Any],
    test_labels: NDArray[Any],
    test_name: str,
) -> dict[str, tuple[str, NDArray[Any]]]:
    """Return arrays as `dataset_of_arrays` takes them, with the name of each in messages."""
    return {
        "train_images": (f"the images of {train_name}", train_images),
        "train_labels": (f"the labels of {train_name}", train_labels),
        "test_images": (f"the images of {test_name}", test_images),
        "test_labels": (f"the labels of {test_name}", test_labels),
    }


def _as_arrays(examples: Examples, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    if not isinstance(examples, tuple | list) or len(examples) != 2:
        raise DataError(f"{name}: expected a pair of arrays, (images, labels).")
    # Views as plain arrays: a memory-mapped array could be a part of its file, and would be taken for the whole file.
    images, labels = (np.ascontiguousarray(array).view(np.ndarray) for array in examples)
    return images, labels
