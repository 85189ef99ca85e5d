from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from partrain.data.dataset import Split, build_dataset, content_digest
from partrain.data.mapped_arrays import is_streamed
from partrain.data.split_name import SplitName
from partrain.errors import DataError
from partrain.parallel.shared_splits import plan_splits, share_dataset, share_splits, shared_parts
from partrain.parallel.workers.example_source import example_source
from partrain.system.shared_arrays import SharedArrays

IMAGES = np.random.default_rng(0).integers(0, 256, (60, 3, 4, 5), np.uint8)
LABELS = np.arange(60) % 7


@pytest.fixture(params=["in memory", "in a mapped file", "in a large file"])
def split(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Split:
    """60 examples; an image of a large file is read when it is needed."""
    if request.param == "in memory":
        return Split(IMAGES, LABELS)
    np.save(tmp_path / "images.npy", IMAGES)
    if request.param == "in a large file":
        monkeypatch.setattr("partrain.data.mapped_arrays.STREAMED_BYTES", 1)
    return Split(np.lib.format.open_memmap(tmp_path / "images.npy", mode="r"), LABELS)


def test_part_of_a_split_counts_its_examples_from_zero(split: Split) -> None:
    part = split.part(10, 50).part(5, 25)
    assert part.size == 20
    np.testing.assert_array_equal(part.images, IMAGES[15:35])
    np.testing.assert_array_equal(part.labels, LABELS[15:35])


def test_workers_take_the_examples_of_a_part_by_its_own_indices(split: Split) -> None:
    splits = {SplitName.TRAIN: split.part(0, 40), SplitName.VALIDATION: split.part(40, 60), SplitName.TEST: split}
    arrays = SharedArrays(*plan_splits(splits))
    try:
        shared = share_splits(splits, arrays)
        for name, first in ((SplitName.TRAIN, 0), (SplitName.VALIDATION, 40), (SplitName.TEST, 0)):
            for indices in ([0, 1, 2, 3], [19, 3, 7]):
                images, places = example_source(arrays, name, 4).take(np.array(indices))
                np.testing.assert_array_equal(images[places], IMAGES[first + np.array(indices)])
            np.testing.assert_array_equal(shared[name].images, splits[name].images)
            np.testing.assert_array_equal(arrays[f"{name}.labels"], splits[name].labels)
    finally:
        arrays.close()


def test_split_without_examples_can_be_shared(split: Split) -> None:
    splits = {SplitName.TRAIN: split, SplitName.VALIDATION: split.part(60, 60)}
    arrays = SharedArrays(*plan_splits(splits))
    try:
        assert share_splits(splits, arrays)[SplitName.VALIDATION].size == 0
    finally:
        arrays.close()


def test_part_of_a_large_file_stays_in_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "images.npy", IMAGES)
    images = np.lib.format.open_memmap(tmp_path / "images.npy", mode="r")
    monkeypatch.setattr("partrain.data.mapped_arrays.STREAMED_BYTES", IMAGES.nbytes)
    assert is_streamed(Split(images, LABELS).part(58, 60).images)
    assert not is_streamed(np.array(images))


def test_evaluation_set_has_one_split_and_the_facts_of_its_images(split: Split) -> None:
    dataset = build_dataset("memory", "arrays in memory", {SplitName.TEST: split}, tuple("abcdefg"))
    assert dataset.test is split
    assert (dataset.image_shape, dataset.image_dtype) == ((3, 4, 5), "uint8")
    with pytest.raises(DataError, match="found the label 6, but memory has only the labels 0 to 5"):
        build_dataset("memory", "arrays in memory", {SplitName.TEST: split}, tuple("abcdef"))


def test_digest_is_of_dtype_shape_and_content_in_the_order_of_the_splits(split: Split) -> None:
    expected = hashlib.sha256()
    for array in (IMAGES, LABELS, IMAGES[:9], LABELS[:9]):
        expected.update(f"{array.dtype.str} {array.shape}\n".encode() + array.tobytes())
    splits = {SplitName.TRAIN: split, SplitName.TEST: split.part(0, 9)}
    assert content_digest(splits) == expected.hexdigest()


def test_a_computation_uses_the_shared_copy_of_a_data_set() -> None:
    splits = {SplitName.TRAIN: Split(np.array(IMAGES), LABELS), SplitName.TEST: Split(IMAGES[:5], LABELS[:5])}
    shared = share_dataset(build_dataset("d", "d", splits))
    assert shared.memory is not None
    part = {SplitName.TRAIN: shared.train.part(1, 3), SplitName.TEST: shared.train.take(np.array([0]))}
    specs, files = plan_splits(part, shared.memory)
    assert set(specs) == {"test.images", "test.labels"}  # a copy, which is not in the shared memory
    arrays = SharedArrays(specs, files, shared_parts(part, shared.memory))
    taken = share_splits(part, arrays)
    np.testing.assert_array_equal(taken[SplitName.TRAIN].images, IMAGES[1:3])
    shared.train.images[2] = 0
    assert not arrays["train.images"][1].any()
    arrays.close()
    shared.memory.close()
