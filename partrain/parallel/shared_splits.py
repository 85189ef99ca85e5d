"""The splits of a data set in shared arrays: `<split>.images` and `<split>.labels`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.data.dataset import Split
from partrain.data.mapped_arrays import is_streamed
from partrain.data.split_name import SplitName
from partrain.system.shared_arrays import ArraySpec, MappedFile


def plan_splits(splits: Mapping[SplitName, Split]) -> tuple[dict[str, ArraySpec], dict[str, MappedFile]]:
    """Return the arrays to allocate for these splits, and the arrays that are mapped from files instead."""
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
            else:
                specs[f"{name}.{kind}"] = ArraySpec(array.shape, array.dtype.str)
    return specs, files


def share_splits(splits: Mapping[SplitName, Split], arrays: Mapping[str, NDArray[Any]]) -> dict[SplitName, Split]:
    """Copy splits into the shared arrays, except images that are mapped from files; return the shared splits."""
    shared = {}
    for name, split in splits.items():
        images = split.images
        if not is_streamed(images):
            images = arrays[f"{name}.images"]
            images[:] = split.images
        labels = arrays[f"{name}.labels"]
        labels[:] = split.labels
        shared[name] = replace(split, images=images, labels=labels)
    return shared
