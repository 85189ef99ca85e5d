from __future__ import annotations

import gzip
import hashlib
import math
import os
import struct
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partrain.data.idx import FILE_NAMES, load_idx_directory, read_idx, split_of
from partrain.errors import DataError, ResourceError
from tests.noise_data import idx_bytes

IMAGES = np.arange(2 * 3 * 4).reshape(2, 3, 4)
CONTENT = idx_bytes(IMAGES)
PACKED = gzip.compress(CONTENT)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "train-images-idx3-ubyte"


def failure(path: Path, content: bytes, num_dimensions: int = 3, **options: int) -> str:
    """Return the message for a file with this content; it must name the file."""
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_idx(path, num_dimensions=num_dimensions, **options)
    message = str(caught.value)
    assert message.startswith(str(path))
    return message


@settings(deadline=None, max_examples=50)
@given(shape=st.lists(st.integers(1, 6), min_size=1, max_size=4), packed=st.booleans(), seed=st.integers(0, 9))
def test_an_array_is_read_as_it_was_written_gzipped_or_not(shape: list[int], packed: bool, seed: int) -> None:
    array = np.random.default_rng(seed).integers(0, 256, shape)
    content = idx_bytes(array)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "no-name-says-whether-it-is.gz"
        path.write_bytes(gzip.compress(content) if packed else content)
        file = read_idx(path, num_dimensions=len(shape))
    np.testing.assert_array_equal(file.array, array)
    assert file.array.dtype == np.uint8
    assert file.sha256 == hashlib.sha256(content).hexdigest()


@settings(deadline=None, max_examples=100)
@given(content=st.binary(max_size=40), packed=st.booleans())
def test_any_bytes_give_an_array_or_a_data_error(content: bytes, packed: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(gzip.compress(content) if packed else content)
        try:
            file = read_idx(path, num_dimensions=1)
        except DataError:
            return
        assert idx_bytes(file.array) == content


@settings(deadline=None, max_examples=100)
@given(sizes=st.tuples(*[st.integers(0, 2**32 - 1)] * 3))
def test_any_sizes_that_are_not_the_contents_are_refused(sizes: tuple[int, int, int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        content = struct.pack(">4B3I", 0, 0, 8, 3, *sizes) + CONTENT[16:]
        if math.prod(sizes) != IMAGES.size:
            failure(path, content)


def test_every_changed_byte_of_the_header_is_noticed(path: Path) -> None:
    for position in range(16):
        for bit in range(8):
            changed = bytearray(CONTENT)
            changed[position] ^= 1 << bit
            failure(path, bytes(changed))


def test_a_file_that_ends_anywhere_is_refused(path: Path) -> None:
    for content in (CONTENT, PACKED):
        for length in range(len(content)):
            failure(path, content[:length])


def test_a_changed_bit_of_gzip_is_an_error_or_leaves_the_content(path: Path) -> None:
    for position in range(len(PACKED)):
        for bit in range(8):
            changed = bytearray(PACKED)
            changed[position] ^= 1 << bit
            path.write_bytes(changed)
            try:
                file = read_idx(path, num_dimensions=3)
            except DataError:
                continue
            np.testing.assert_array_equal(file.array, IMAGES)


def test_gzip_in_several_members_is_read(path: Path) -> None:
    path.write_bytes(gzip.compress(CONTENT[:20]) + gzip.compress(CONTENT[20:]))
    np.testing.assert_array_equal(read_idx(path, num_dimensions=3).array, IMAGES)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", ["is empty"]),
        (CONTENT[:7], ["ends after 7 bytes", "header"]),
        (CONTENT[:20], ["ends after 4 bytes", "2 x 3 x 4 = 24 bytes"]),
        (CONTENT + b"x", ["has more data", "2 x 3 x 4 = 24 bytes"]),
        (b"PK\3\4" + CONTENT[4:], ["0x504b0304", "0x00000803"]),
        (b"\0\0\x0d\3" + CONTENT[4:], ["0x00000d03", "0x00000803", "unsigned bytes"]),
        (idx_bytes(np.arange(5)), ["0x00000801", "0x00000803", "not swapped"]),
        (idx_bytes(np.empty((2, 0, 4))), ["(2, 0, 4)", "none may be 0"]),
    ],
)
def test_the_message_says_what_was_found_and_expected(
    path: Path, content: bytes, expected: list[str], packed: bool
) -> None:
    message = failure(path, gzip.compress(content) if packed else content)
    for words in expected:
        assert words in message
    assert message.endswith(("Replace it with a complete copy.", "not swapped."))


def test_a_gzip_file_that_was_cut_off_is_called_so(path: Path) -> None:
    assert "is truncated" in failure(path, PACKED[:-10])


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(PACKED[:-8] + b"\0\0\0\0" + PACKED[-4:], id="checksum"),
        pytest.param(PACKED[:-4] + b"\0\0\0\1", id="length"),
        pytest.param(PACKED[:10] + b"\xff" * 20 + PACKED[30:], id="deflate stream"),
        pytest.param(PACKED + b"garbage", id="garbage after the end"),
    ],
)
def test_damaged_gzip_is_called_so(path: Path, content: bytes) -> None:
    assert "gzip data is damaged" in failure(path, content)


def test_a_size_over_the_limit_is_refused_before_it_is_allocated(path: Path) -> None:
    header = struct.pack(">4B3I", 0, 0, 8, 3, 60_000, 28, 28)
    tracemalloc.start()
    try:
        message = failure(path, header, max_bytes=47_039_999)
        largest = failure(path, struct.pack(">4B3I", 0, 0, 8, 3, *[2**32 - 1] * 3))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert "60000 x 28 x 28 = 47,040,000 bytes" in message
    assert "47,039,999" in message
    assert "arrays" in message
    assert "limit" in largest


def test_a_size_at_the_limit_is_read(path: Path) -> None:
    path.write_bytes(CONTENT)
    assert read_idx(path, num_dimensions=3, max_bytes=24).array.shape == (2, 3, 4)


def test_a_gzip_bomb_is_not_unpacked(path: Path) -> None:
    bomb = gzip.compress(CONTENT + bytes(20_000_000))
    tracemalloc.start()
    try:
        assert "has more data" in failure(path, bomb)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_content_that_does_not_fit_into_memory_is_a_resource_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise MemoryError

    path.write_bytes(CONTENT)
    monkeypatch.setattr("partrain.data.idx.np.empty", full)
    with pytest.raises(ResourceError, match="24 bytes, does not fit into memory"):
        read_idx(path, num_dimensions=3)


def test_a_path_that_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    for path, words in (
        (tmp_path, "a directory"),
        (tmp_path / "pipe", "neither a file"),
        (tmp_path / "missing", "No such file"),
        (tmp_path / "link", "No such file"),
        (tmp_path / "nul\0", "null"),
        (tmp_path / ("x" * 300), "name too long"),
    ):
        with pytest.raises(DataError, match=words) as caught:
            read_idx(path, num_dimensions=1)
        assert str(path) in str(caught.value)


def test_a_file_without_permission_is_refused(path: Path) -> None:
    path.write_bytes(CONTENT)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(DataError, match="Permission denied"):
        read_idx(path, num_dimensions=3)


def test_a_split_has_one_channel_and_labels_of_64_bits(tmp_path: Path) -> None:
    (tmp_path / "images").write_bytes(CONTENT)
    (tmp_path / "labels").write_bytes(idx_bytes(np.array([7, 255])))
    split = split_of(read_idx(tmp_path / "images", num_dimensions=3), read_idx(tmp_path / "labels", num_dimensions=1))
    assert split.images.shape == (2, 1, 3, 4)
    assert split.images.dtype == np.uint8
    assert split.images.flags.c_contiguous
    assert split.labels.dtype == np.int64
    assert split.labels.tolist() == [7, 255]


def test_different_counts_are_refused_with_both_counts_and_files(tmp_path: Path) -> None:
    (tmp_path / "images").write_bytes(CONTENT)
    (tmp_path / "labels").write_bytes(idx_bytes(np.arange(3)))
    with pytest.raises(DataError) as caught:
        split_of(read_idx(tmp_path / "images", num_dimensions=3), read_idx(tmp_path / "labels", num_dimensions=1))
    for words in (tmp_path / "images", "2 images", tmp_path / "labels", "3 labels"):
        assert str(words) in str(caught.value)


def write_directory(folder: Path, *, dotted: bool = False, packed: bool = False) -> None:
    """Write the four files: 6 training images with labels 0 to 5, 3 test images with labels 0 to 2."""
    folder.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(0).integers(0, 256, (9, 4, 5))
    for name, array in zip(FILE_NAMES, (images[:6], np.arange(6), images[6:], np.arange(3)), strict=True):
        content = idx_bytes(array)
        name = name.replace("-idx", ".idx") if dotted else name
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)


def test_a_folder_is_the_same_data_set_under_each_kind_of_name(tmp_path: Path) -> None:
    datasets = []
    for dotted in (False, True):
        for packed in (False, True):
            folder = tmp_path / f"{dotted}-{packed}"
            write_directory(folder, dotted=dotted, packed=packed)
            datasets.append(load_idx_directory(folder))
            assert datasets[-1].source == str(folder)
    assert len({dataset.digest for dataset in datasets}) == 1
    assert datasets[0].name == "idx"
    assert datasets[0].train.images.shape == (6, 1, 4, 5)
    assert datasets[0].test.labels.tolist() == [0, 1, 2]
    assert datasets[0].class_names == ("0", "1", "2", "3", "4", "5")


@pytest.mark.parametrize("position", range(4))
def test_the_digest_changes_with_each_file(tmp_path: Path, position: int) -> None:
    write_directory(tmp_path)
    before = load_idx_directory(tmp_path).digest
    path = tmp_path / FILE_NAMES[position]
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert load_idx_directory(tmp_path).digest != before


def test_the_digest_changes_with_the_shape(tmp_path: Path) -> None:
    write_directory(tmp_path)
    before = load_idx_directory(tmp_path).digest
    for name in (FILE_NAMES[0], FILE_NAMES[2]):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[:8] + struct.pack(">2I", 5, 4) + content[16:])
    assert load_idx_directory(tmp_path).digest != before


def test_a_folder_that_lacks_files_is_refused_with_their_names(tmp_path: Path) -> None:
    write_directory(tmp_path)
    (tmp_path / FILE_NAMES[1]).unlink()
    (tmp_path / FILE_NAMES[2]).unlink()
    with pytest.raises(DataError, match=f"{FILE_NAMES[1]}, {FILE_NAMES[2]}") as caught:
        load_idx_directory(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path, words in ((tmp_path / "missing", "No such"), (tmp_path / "file", "Not a dir"), ("a\0b", "null")):
        with pytest.raises(DataError, match=words):
            load_idx_directory(path)


def test_images_of_two_sizes_are_refused(tmp_path: Path) -> None:
    write_directory(tmp_path)
    (tmp_path / FILE_NAMES[2]).write_bytes(idx_bytes(np.zeros((3, 5, 5))))
    with pytest.raises(DataError, match=r"\(1, 4, 5\).*\(1, 5, 5\)"):
        load_idx_directory(tmp_path)
