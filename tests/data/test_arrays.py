from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from partrain.data.arrays import load_arrays
from partrain.errors import DataError, ResourceError

Arrays = dict[str, np.ndarray]
KERAS = {"train_images": "x_train", "train_labels": "y_train", "test_images": "x_test", "test_labels": "y_test"}


@pytest.fixture
def arrays() -> Arrays:
    images = np.random.default_rng(0).integers(0, 256, (9, 4, 5), np.uint8)
    return {
        "train_images": images[:6],
        "train_labels": np.array([0, 1, 2, 3, 0, 1], np.int32),
        "test_images": images[6:],
        "test_labels": np.array([2, 1, 0], np.int32),
    }


def write_folder(folder: Path, arrays: Arrays) -> Path:
    folder.mkdir(exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def write_npz(path: Path, arrays: Arrays) -> Path:
    np.savez_compressed(path, **arrays)
    return path


def failure(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_arrays(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    return message


def failures(folder: Path, arrays: Arrays) -> list[str]:
    """Return the messages for these arrays, as a folder and as an .npz file."""
    return [
        failure(write_folder(folder / "arrays", arrays)),
        failure(write_npz(folder / "arrays.npz", arrays)),
    ]


def test_a_folder_an_archive_and_one_with_keras_names_are_the_same_data_set(tmp_path: Path, arrays: Arrays) -> None:
    datasets = [
        load_arrays(path)
        for path in (
            write_folder(tmp_path / "folder", arrays),
            write_npz(tmp_path / "ours.npz", arrays),
            write_npz(tmp_path / "keras.npz", {KERAS[name]: array for name, array in arrays.items()}),
        )
    ]
    assert len({dataset.digest for dataset in datasets}) == 1
    for dataset, source in zip(datasets, ("folder", "ours.npz", "keras.npz"), strict=True):
        assert dataset.name == "arrays"
        assert dataset.source == str(tmp_path / source)
        assert dataset.class_names == ("0", "1", "2", "3")
        np.testing.assert_array_equal(dataset.train.images[:, 0], arrays["train_images"])
        np.testing.assert_array_equal(dataset.test.labels, arrays["test_labels"])
        assert dataset.train.labels.dtype == np.int64


@pytest.mark.parametrize("shape", [(4, 5), (1, 4, 5), (3, 4, 5)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_images_of_a_folder_stay_mapped_and_keep_their_place_in_the_file(
    tmp_path: Path, arrays: Arrays, shape: tuple[int, ...], dtype: type
) -> None:
    rng = np.random.default_rng(1)
    arrays["train_images"] = rng.integers(0, 256, (6, *shape)).astype(dtype)
    arrays["test_images"] = rng.integers(0, 256, (3, *shape)).astype(dtype)
    images = load_arrays(write_folder(tmp_path, arrays)).train.images
    assert isinstance(images, np.memmap)
    assert images.shape == (6, shape[0] if len(shape) == 3 else 1, 4, 5)
    assert images.dtype == dtype
    assert images.flags.c_contiguous
    assert not images.flags.writeable
    again = np.memmap(images.filename, dtype, "r", offset=images.offset, shape=images.shape)
    np.testing.assert_array_equal(again, arrays["train_images"].reshape(images.shape))


def test_labels_of_any_integer_type_are_read(tmp_path: Path, arrays: Arrays) -> None:
    for dtype in ("uint8", "int16", ">i4", "uint64"):
        arrays["train_labels"] = arrays["train_labels"].astype(dtype)
        assert load_arrays(write_folder(tmp_path, arrays)).train.labels.tolist() == [0, 1, 2, 3, 0, 1]


def test_the_largest_label_is_65535(tmp_path: Path, arrays: Arrays) -> None:
    arrays["test_labels"][0] = 65_535
    assert load_arrays(write_folder(tmp_path / "arrays", arrays)).class_names[-1] == "65535"
    arrays["test_labels"][0] = 65_536
    for message in failures(tmp_path, arrays):
        assert "test_labels" in message
        assert "65536" in message
        assert "65,535" in message


@pytest.mark.parametrize(
    ("name", "array", "expected"),
    [
        ("train_images", np.full((6, 4, 5), 0.1), ["dtype float64", "uint8 or float32", "0.1 in example 0"]),
        ("train_images", np.zeros((6, 4, 5), ">i4"), ["dtype >i4", "uint8 or float32"]),
        ("train_images", np.zeros((6, 4, 5), "u1,u1"), ["dtype", "uint8 or float32"]),
        ("train_images", np.zeros((6, 4, 5), np.complex64), ["dtype complex64", "uint8 or float32"]),
        ("train_images", np.zeros((6, 20), np.uint8), ["shape (6, 20)"]),
        ("train_images", np.zeros((6, 1, 1, 4, 5), np.uint8), ["shape (6, 1, 1, 4, 5)"]),
        ("train_images", np.zeros((6, 4, 5), np.uint8, order="F"), ["not C-contiguous"]),
        ("test_images", np.zeros((3, 5, 4), np.uint8), ["(1, 4, 5)", "(1, 5, 4)"]),
        ("test_images", np.zeros((3, 4, 5), np.float32), ["uint8", "float32"]),
        ("train_labels", np.zeros(6, np.float32), ["dtype float32", "integers"]),
        ("train_labels", np.zeros(6, bool), ["dtype bool", "integers"]),
        ("train_labels", np.zeros((6, 2), np.int64), ["shape (6, 2)", "numpy.argmax(labels, axis=1)"]),
        ("train_labels", np.zeros(5, np.int64), ["6 images", "5 labels"]),
        ("train_labels", np.array([0, 1, -1, 0, 0, 0]), ["from -1 to 1"]),
        ("train_labels", np.array([2**64 - 1] * 6, np.uint64), [f"to {2**64 - 1}"]),
    ],
)
def test_an_array_that_is_not_as_described_is_refused(
    tmp_path: Path, arrays: Arrays, name: str, array: np.ndarray, expected: list[str]
) -> None:
    arrays[name] = array
    for message in failures(tmp_path, arrays):
        for words in expected:
            assert words in message


def test_no_examples_are_refused(tmp_path: Path, arrays: Arrays) -> None:
    arrays["test_images"] = np.zeros((0, 4, 5), np.uint8)
    arrays["test_labels"] = np.zeros(0, np.int64)
    for message in failures(tmp_path, arrays):
        assert "test_images" in message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_first_value_that_is_not_finite_is_named(tmp_path: Path, arrays: Arrays, value: float) -> None:
    for name in ("train_images", "test_images"):
        arrays[name] = arrays[name].astype(np.float32)
    # More than the chunk in which the check reads.
    arrays["test_images"] = np.zeros((300, 4, 5), np.float32).repeat(250, axis=0)
    arrays["test_labels"] = np.zeros(75_000, np.int64)
    arrays["test_images"][70_001, 2, 3] = value
    arrays["test_images"][70_002, 0, 0] = value
    for message in failures(tmp_path, arrays):
        assert f"value at (70001, 2, 3) is {value}" in message
        assert "test_images" in message


@pytest.mark.parametrize("name", ["train_images", "test_labels"])
def test_arrays_of_objects_are_refused_by_name_and_nothing_in_them_runs(
    tmp_path: Path, arrays: Arrays, name: str
) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "trapped"),)

    arrays[name] = np.array([Trap()] * 6, object)
    for message in failures(tmp_path, arrays):
        assert name in message
        assert "array of Python objects" in message
    assert not (tmp_path / "trapped").exists()


def test_a_pickle_in_place_of_an_array_is_refused(tmp_path: Path, arrays: Arrays) -> None:
    import pickle

    write_folder(tmp_path / "arrays", arrays)
    (tmp_path / "arrays" / "train_images.npy").write_bytes(pickle.dumps([1]))
    (tmp_path / "arrays.npz").write_bytes(pickle.dumps([1]))
    assert "train_images.npy: is damaged" in failure(tmp_path / "arrays")
    assert "not a zip file" in failure(tmp_path / "arrays.npz")


def test_missing_arrays_are_named_with_those_that_are_there(tmp_path: Path, arrays: Arrays) -> None:
    del arrays["train_labels"], arrays["test_images"]
    folder, archive = failures(tmp_path, arrays)
    assert "contains no train_labels.npy, test_images.npy, but test_labels.npy, train_images.npy" in folder
    assert "found test_labels, train_images" in archive
    assert "x_train" in archive
    empty_folder, empty_archive = failures(tmp_path / "arrays", {})
    assert "contains no train_images.npy" in empty_folder
    assert "found nothing" in empty_archive


def test_damaged_files_are_refused(tmp_path: Path, arrays: Arrays) -> None:
    folder = write_folder(tmp_path / "folder", arrays)
    path = folder / "train_images.npy"
    array = path.read_bytes()
    path = write_npz(tmp_path / "arrays.npz", arrays)
    archive = path.read_bytes()
    for length in (0, 1, 5, 9, 60, 100, -1):
        (folder / "train_images.npy").write_bytes(array[:length])
        assert "train_images.npy" in failure(folder)
        path.write_bytes(archive[:length])
        failure(path)
    for position in (0, 7, 20, 40, 55):
        (folder / "train_images.npy").write_bytes(array[:position] + b"(" + array[position + 1 :])
        assert "train_images.npy" in failure(folder)
    middle = archive.index(b"train_images.npy") + 120
    path.write_bytes(archive[:middle] + bytes([archive[middle] ^ 255]) + archive[middle + 1 :])
    assert "train_images" in failure(path)


def test_a_zip_archive_of_other_files_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "arrays.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name in KERAS:
            archive.writestr(name, "text")
    assert "train_images: is damaged or not a NumPy file (no array)" in failure(path)


def test_a_single_array_in_place_of_an_archive_is_refused(tmp_path: Path, arrays: Arrays) -> None:
    np.save(tmp_path / "images.npy", arrays["train_images"])
    assert "numpy.savez" in failure(tmp_path / "images.npy")


def test_an_array_larger_than_memory_is_a_resource_error(tmp_path: Path, arrays: Arrays) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (2**40, 2**10, 2**10)}
    )
    path = tmp_path / "arrays.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name in KERAS:
            archive.writestr(f"{name}.npy", header.getvalue())
    with pytest.raises(ResourceError, match="train_images: does not fit into memory"):
        load_arrays(path)


def test_a_path_that_is_neither_file_nor_folder_is_refused(tmp_path: Path, arrays: Arrays) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "No such file" in failure(tmp_path / "missing")
    assert "neither a file" in failure(tmp_path / "pipe")
    assert "null" in failure(tmp_path / "nul\0")
    folder = write_folder(tmp_path / "folder", arrays)
    (folder / "test_labels.npy").unlink()
    (folder / "test_labels.npy").mkdir()
    assert "a directory" in failure(folder)


def test_files_without_permission_are_refused(tmp_path: Path, arrays: Arrays) -> None:
    path = write_npz(tmp_path / "arrays.npz", arrays)
    folder = write_folder(tmp_path / "folder", arrays)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    (folder / "train_images.npy").chmod(0)
    assert "Permission denied" in failure(path)
    assert "Permission denied" in failure(folder)
    folder.chmod(0)
    assert "Permission denied" in failure(folder)
    folder.chmod(0o700)


def test_names_of_classes_and_the_division_are_taken_where_they_are(tmp_path: Path, arrays: Arrays) -> None:
    more = {"class_names": np.array(["a", "b b", "c é", "d"]), "validation_examples": np.array(2)}
    for path in (write_folder(tmp_path / "folder", arrays | more), write_npz(tmp_path / "x.npz", arrays | more)):
        dataset = load_arrays(path)
        assert dataset.class_names == ("a", "b b", "c é", "d")
        assert dataset.num_validation == 2


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"class_names": np.array(["a", "b", "c"])}, "found the label 3"),
        ({"class_names": np.array(["a", "b", "c", "a"])}, "the name 'a' occurs twice"),
        ({"class_names": np.arange(4)}, "expected strings of shape (classes,)"),
        ({"validation_examples": np.array(6)}, "expected one whole number from 0 to 5"),
        ({"validation_examples": np.array([1, 2])}, "expected one whole number"),
        ({"validation_examples": np.array(1.5)}, "expected one whole number"),
    ],
)
def test_names_and_divisions_that_cannot_be_used(tmp_path: Path, arrays: Arrays, more: Arrays, message: str) -> None:
    for said in failures(tmp_path, arrays | more):
        assert message in said
