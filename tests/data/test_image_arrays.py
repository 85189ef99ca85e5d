"""Arrays as Keras, MedMNIST, Pillow and torchvision save them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from partrain.config.schema.data import Data
from partrain.data.arrays import load_arrays
from partrain.data.loading import load_dataset
from partrain.data.mapped_arrays import is_streamed
from partrain.data.training_statistics import measure_normalisation
from partrain.errors import DataError, ResourceError

Arrays = dict[str, np.ndarray]
Save = Callable[..., Path]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("partrain.data.measurement_cache.user_cache_directory", lambda: tmp_path / "cache")


@pytest.fixture(params=["archive", "directory"])
def save(request: pytest.FixtureRequest, tmp_path: Path) -> Save:
    """Save arrays in one of the two forms."""

    def save_arrays(name: str = "data", **arrays: Any) -> Path:
        if request.param == "archive":
            np.savez(tmp_path / f"{name}.npz", **arrays)
            return tmp_path / f"{name}.npz"
        (tmp_path / name).mkdir()
        for key, array in arrays.items():
            np.save(tmp_path / name / f"{key}.npy", array)
        return tmp_path / name

    return save_arrays


def sample(shape: tuple[int, ...] = (6, 5), dtype: Any = np.uint8, num: int = 9) -> Arrays:
    images = np.random.default_rng(len(shape)).integers(0, 256, (num, *shape)).astype(dtype)
    return {
        "train_images": images[:6],
        "train_labels": np.arange(6) % 3,
        "test_images": images[6:],
        "test_labels": np.arange(num - 6) % 3,
    }


def with_images(arrays: Arrays, change: Callable[[np.ndarray], np.ndarray]) -> Arrays:
    return {name: change(array) if name.endswith("images") else array for name, array in arrays.items()}


def channels_last(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(images, 1, 3))


def data_of(path: Path, **keys: Any) -> Data:
    return Data(name="arrays", path=str(path), **keys)


def load(data: Data) -> Any:
    return load_dataset(data, 0, say=lambda _: None, warn=pytest.fail)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_last_arrays_are_refused_and_the_message_says_which_axis_to_move(save: Save, channels: int) -> None:
    path = save(**with_images(sample((channels, 6, 5)), channels_last))
    with pytest.raises(DataError) as caught:
        load_arrays(path)
    message = str(caught.value)
    assert "train_images" in message
    assert f"has shape (6, 6, 5, {channels}), which looks like (examples, rows, columns, channels)" in message
    assert "data.layout: channels_last" in message
    assert "numpy.moveaxis(images, 3, 1)" in message


@pytest.mark.parametrize("shape", [(6, 5), (1, 6, 5), (3, 6, 5), (2, 6, 5)])
@pytest.mark.parametrize(
    ("dtype", "streamed"),
    [(np.uint8, False), (np.uint8, True), (np.float32, False), (np.float32, True), (np.float64, False)],
)
def test_channels_last_arrays_are_those_with_the_axis_moved(
    save: Save, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], dtype: Any, streamed: bool
) -> None:
    monkeypatch.setattr("partrain.data.mapped_arrays.STREAMED_BYTES", 1 if streamed else 10**9)
    moved = sample(shape, dtype)
    expected = load_arrays(save("moved", **moved))
    last = with_images(moved, channels_last) if len(shape) == 3 else moved
    dataset = load_arrays(save("last", **last), "channels_last")
    assert dataset.digest == expected.digest
    assert dataset.image_shape == expected.image_shape == (shape if len(shape) == 3 else (1, *shape))
    np.testing.assert_array_equal(dataset.train.images, expected.train.images)
    # Sums depend on the order in which NumPy adds.
    assert measure_normalisation(dataset.train.images) == measure_normalisation(expected.train.images)
    assert is_streamed(dataset.train.images) == is_streamed(expected.train.images)


def test_digest_in_the_cache_is_that_of_the_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("partrain.data.mapped_arrays.STREAMED_BYTES", 1)
    for key, array in sample((4, 4, 4)).items():
        np.save(tmp_path / f"{key}.npy", array)
    first, last = load_arrays(tmp_path, "channels_first"), load_arrays(tmp_path, "channels_last")
    assert first.digest != last.digest
    monkeypatch.setattr("partrain.data.dataset.content_digest", pytest.fail)  # what was measured is not measured again
    assert load_arrays(tmp_path).digest == first.digest
    assert load_arrays(tmp_path, "channels_last").digest == last.digest


def test_arrays_with_few_columns_are_taken_as_they_are_if_the_layout_says_so(save: Save) -> None:
    arrays = sample((28, 8, 3))
    dataset = load_arrays(save(**arrays), "channels_first")
    np.testing.assert_array_equal(dataset.train.images, arrays["train_images"])


def test_labels_with_a_second_axis_of_one_are_labels(save: Save) -> None:
    arrays = sample()
    flat = load_arrays(save("flat", **arrays))
    columns = {key: array[:, None] if key.endswith("labels") else array for key, array in arrays.items()}
    assert load_arrays(save("columns", **columns)).digest == flat.digest


@pytest.mark.parametrize("names", [("val_images", "val_labels"), ("x_val", "y_val")])
@pytest.mark.parametrize("streamed", [False, True])
def test_validation_arrays_are_for_validation(
    save: Save, monkeypatch: pytest.MonkeyPatch, names: tuple[str, str], streamed: bool
) -> None:
    monkeypatch.setattr("partrain.data.mapped_arrays.STREAMED_BYTES", 1 if streamed else 10**9)
    arrays = sample()
    validation = (arrays["test_images"][:2] ^ 1, np.array([[2], [1]]))
    path = save(**arrays, **dict(zip(names, validation, strict=True)))
    dataset = load(data_of(path))
    assert [dataset.splits[split].size for split in ("train", "validation", "test")] == [6, 2, 3]
    np.testing.assert_array_equal(dataset.validation.images[:, 0], validation[0])
    assert dataset.validation.labels.tolist() == [2, 1]
    assert load(data_of(path, train_examples=4)).validation.size == 2


def test_numbers_of_examples_divide_the_training_arrays_as_before_there_were_validation_arrays(save: Save) -> None:
    arrays = sample()
    more = {"val_images": arrays["test_images"], "val_labels": arrays["test_labels"]}
    numbers = {"train_examples": 4, "validation_examples": 2}
    old = load(data_of(save("old", **arrays), **numbers))
    new = load(data_of(path := save("new", **arrays, **more), **numbers))
    assert new.digest == old.digest
    np.testing.assert_array_equal(new.validation.images, old.validation.images)
    said: list[str] = []
    load_dataset(data_of(path, **numbers), 0, say=said.append, warn=pytest.fail)
    assert len(said) == 1
    assert "val_images, val_labels are not used" in said[0]


@pytest.mark.parametrize(
    "more",
    [{"val_images": 1}, {"val_labels": 1}, {"val_images": 1, "y_val": 1}, {"val_images": 1, "val_labels": 1, "x": 1}],
)
def test_validation_arrays_that_are_not_one_pair_are_refused(save: Save, more: dict[str, int]) -> None:
    if "x" in more:
        more = {"val_images": 1, "val_labels": 1, "validation_examples": 1}
    with pytest.raises(DataError, match="expected two arrays for validation, images and labels"):
        load_arrays(save(**sample(), **more))


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ">f4", ">f8", np.longdouble])
def test_floating_point_images_that_float32_represents_are_converted(save: Save, dtype: Any) -> None:
    arrays = with_images(sample(), lambda images: images.astype(np.float32) / 16)
    expected = load_arrays(save("float32", **arrays))
    other = with_images(arrays, lambda images: images.astype(dtype))
    assert load_arrays(save("other", **other)).digest == expected.digest


@pytest.mark.parametrize(("value", "words"), [(1 / 3, "0.3333333333333333 in example 4"), (1e300, "1e+300")])
def test_images_that_float32_would_round_are_refused_with_the_conversion(save: Save, value: float, words: str) -> None:
    arrays = with_images(sample(), lambda images: images.astype(np.float64))
    arrays["train_images"][4, 2, 3] = value
    with pytest.raises(DataError) as caught:
        load_arrays(save(**arrays))
    for fragment in (words, ".astype(numpy.float32)", "numpy.rint(255 * images).astype(numpy.uint8)"):
        assert fragment in str(caught.value)


def test_not_a_number_among_float64_images_is_named_with_its_place(save: Save) -> None:
    arrays = with_images(sample(), lambda images: images.astype(np.float64))
    arrays["train_images"][4, 2, 3] = np.nan
    with pytest.raises(DataError, match="the value at \\(4, 2, 3\\) is nan"):
        load_arrays(save(**arrays))


def test_integer_images_are_refused_with_the_conversion(save: Save) -> None:
    with pytest.raises(DataError, match=r"Convert values from 0 to 255 with \.astype\(numpy\.uint8\)"):
        load_arrays(save(**with_images(sample(), lambda images: images.astype(np.int64))))


def test_archive_that_inflates_to_more_than_the_memory_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = sample((64, 64)) | {"train_images": np.zeros((6, 2048, 1024), np.uint8)}
    np.savez_compressed(tmp_path / "small.npz", **arrays)
    assert (tmp_path / "small.npz").stat().st_size < 100_000
    monkeypatch.setattr("partrain.system.memory_limits.available_memory", lambda: 10 * 2**20)
    monkeypatch.setattr("numpy.lib.format.read_array", pytest.fail)
    with pytest.raises(ResourceError, match="it needs 12 MiB, and 10 MiB are available"):
        load_arrays(tmp_path / "small.npz")
