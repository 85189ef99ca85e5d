"""The splits of a data set in shared arrays: `<split>.images` and `<split>.labels`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from partrain.data.dataset import Dataset, Split
from partrain.data.mapped_arrays import is_streamed
from partrain.data.split_name import SplitName
from partrain.system.shared_arrays import ArraySpec, MappedFile, SharedArrays, SharedPart


def plan_splits(
    splits: Mapping[SplitName, Split], memory: SharedArrays | None = None
) -> tuple[dict[str, ArraySpec], dict[str, MappedFile]]:
    """Return the arrays to allocate for these splits, and the arrays that are mapped from files instead.

    Arrays that are in the shared `memory` already are neither.
    """
    present = shared_parts(splits, memory)
    specs: dict[str, ArraySpec] = {}
    files: dict[str, MappedFile] = {}
    for name, split in splits.items():
        for kind, array in (("images", split.images), ("labels", split.labels)):
            if is_streamed(array):
                assert isinstance(array, np.memmap)
                assert array.filename is not None
                files[f"{name}.{kind}"] = MappedFile(
                    str(array.filename), array.offset, array.shape, array.dtype.str, not array.flags.c_contiguous
                )
            elif f"{name}.{kind}" not in present:
                specs[f"{name}.{kind}"] = ArraySpec(array.shape, array.dtype.str)
    return specs, files


def shared_parts(splits: Mapping[SplitName, Split], memory: SharedArrays | None) -> dict[str, SharedPart]:
    """Return the arrays of these splits that are in the shared `memory` already."""
    if memory is None:
        return {}
    arrays = {
        f"{name}.{kind}": array
        for name, split in splits.items()
        for kind, array in (("images", split.images), ("labels", split.labels))
    }
    return {name: part for name, array in arrays.items() if (part := memory.find(array)) is not None}


def share_splits(splits: Mapping[SplitName, Split], arrays: SharedArrays) -> dict[SplitName, Split]:
    """Copy splits into the shared arrays, except images that are mapped from files; return the shared splits."""
    shared = {}
    for name, split in splits.items():
        images = split.images
        if not is_streamed(images):
            images = arrays[f"{name}.images"]
            if f"{name}.images" not in arrays.parts:
                images[:] = split.images
        labels = arrays[f"{name}.labels"]
        if f"{name}.labels" not in arrays.parts:
            labels[:] = split.labels
        shared[name] = replace(split, images=images, labels=labels)
    return shared


def share_dataset(dataset: Dataset) -> Dataset:
    """Copy a data set into shared memory, for several trainings; each uses what it needs of it without a copy.

    Raises
    ------
    ResourceError
        There is too little memory.
    """
    memory = SharedArrays(*plan_splits(dataset.splits))
    return replace(dataset, splits=share_splits(dataset.splits, memory), memory=memory)
