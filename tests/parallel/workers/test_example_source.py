from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from partrain.data.split_name import SplitName
from partrain.parallel.workers.example_source import StreamedImages, example_source
from partrain.system.shared_arrays import ArraySpec, MappedFile, SharedArrays

IMAGES = np.random.Generator(np.random.Philox(key=0)).integers(0, 256, (50, 3, 4, 5), np.uint8)


def write(path: Path, images: np.ndarray) -> MappedFile:
    np.save(path, images)
    offset = np.lib.format.open_memmap(path, mode="r").offset
    return MappedFile(str(path), offset, images.shape, images.dtype.str)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("indices", [[7], [3, 49, 0, 3], [10, 11, 12, 13], [13, 12, 11, 10], [4, 6, 5, 7]])
def test_examples_of_a_file_are_those_of_the_array(tmp_path: Path, dtype: str, indices: list[int]) -> None:
    source = StreamedImages(write(tmp_path / "a.npy", IMAGES.astype(dtype)), 4)
    images, places = source.take(np.array(indices))
    assert images.dtype == dtype
    assert images.flags.c_contiguous
    assert places.flags.c_contiguous
    np.testing.assert_array_equal(images[places], IMAGES[indices])


def test_file_that_was_cut_is_an_error_and_no_bus_error(tmp_path: Path) -> None:
    file = write(tmp_path / "a.npy", IMAGES)
    source = StreamedImages(file, 4)
    with open(file.path, "r+b") as opened:
        opened.truncate(1000)
    source.take(np.array([0, 1]))
    with pytest.raises(OSError, match="ends before example 40; the file was truncated"):
        source.take(np.array([40]))


def test_shared_images_are_taken_where_they_are() -> None:
    arrays = SharedArrays({"train.images": ArraySpec(IMAGES.shape, "|u1")}, {})
    images, places = example_source(arrays, SplitName.TRAIN, 4).take(np.array([5, 2]))
    assert images is arrays["train.images"]
    assert places.tolist() == [5, 2]
    arrays.close()
