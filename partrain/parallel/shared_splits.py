"""The data set in shared arrays: images and labels of a file are `<file>.images` and `<file>.labels`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.data.dataset import Split
from partrain.parallel.shared_arrays import ArraySpec, MappedFile


def plan_splits(splits: Mapping[str, Split]) -> tuple[dict[str, ArraySpec], dict[str, MappedFile]]:
    """Return what to allocate for these files of the data set, and what to map: arrays that are mapped files."""
    specs: dict[str, ArraySpec] = {}
    files: dict[str, MappedFile] = {}
    for name, split in splits.items():
        for kind, array in (("images", split.images), ("labels", split.labels)):
            if isinstance(array, np.memmap):
                assert array.filename is not None
                files[f"{name}.{kind}"] = MappedFile(str(array.filename), array.offset, array.shape, array.dtype.str)
            else:
                specs[f"{name}.{kind}"] = ArraySpec(array.shape, array.dtype.str)
    return specs, files


def share_splits(splits: Mapping[str, Split], arrays: Mapping[str, NDArray[Any]]) -> dict[str, Split]:
    """Copy the files of the data set into the shared arrays, where they are not mapped there; return them there."""
    shared = {}
    for name, split in splits.items():
        shared[name] = Split(arrays[f"{name}.images"], arrays[f"{name}.labels"])
        if not isinstance(split.images, np.memmap):
            shared[name].images[:] = split.images
        if not isinstance(split.labels, np.memmap):
            shared[name].labels[:] = split.labels
    return shared
