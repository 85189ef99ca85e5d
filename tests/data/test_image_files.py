from __future__ import annotations

import builtins
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from partrain.data.image_decoding import MAX_PIXELS
from partrain.data.image_files import read_image
from partrain.errors import DataError, MissingPackage, ResourceError
from tests.noise_data import noise_examples

GREY = (1, 28, 28)
DIGIT: NDArray[np.uint8] = noise_examples(1)[0][0]


def refuse(path: Path, shape: tuple[int, ...] = GREY, dtype: str = "uint8", **options: Any) -> str:
    with pytest.raises(DataError) as raised:
        read_image(path, shape, dtype, **options)
    message = str(raised.value)
    assert message.startswith(str(path))
    return message


def save_array(path: Path, array: NDArray[Any]) -> Path:
    np.save(path, array, allow_pickle=True)
    return path


# ---- pictures


def test_grey_picture_of_the_networks_size_is_taken_as_it_is(tmp_path: Path) -> None:
    Image.fromarray(DIGIT).save(tmp_path / "digit.png")
    image = read_image(tmp_path / "digit.png", GREY, "uint8")
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, DIGIT[None])


def test_inverted_picture_has_light_for_dark(tmp_path: Path) -> None:
    Image.fromarray(255 - DIGIT).save(tmp_path / "digit.png")
    np.testing.assert_array_equal(read_image(tmp_path / "digit.png", GREY, "uint8", invert=True), DIGIT[None])


def test_what_a_file_is_decides_its_content_and_not_its_name(tmp_path: Path) -> None:
    Image.fromarray(DIGIT).save(tmp_path / "digit.dat", format="PNG")
    np.testing.assert_array_equal(read_image(tmp_path / "digit.dat", GREY, "uint8"), DIGIT[None])
    save_array(tmp_path / "x.npy", DIGIT).rename(tmp_path / "array.png")
    np.testing.assert_array_equal(read_image(tmp_path / "array.png", GREY, "uint8"), DIGIT[None])


def test_picture_is_resized_with_averaging(tmp_path: Path) -> None:
    stripes = np.zeros((280, 140), np.uint8)
    stripes[:, ::2] = 200
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    image = read_image(tmp_path / "stripes.png", GREY, "uint8")
    assert image.shape == GREY
    np.testing.assert_allclose(image, 100, atol=10)


def test_colours_become_channels(tmp_path: Path) -> None:
    colours = np.stack([DIGIT, DIGIT // 2, DIGIT // 3], axis=2)
    Image.fromarray(colours).save(tmp_path / "colours.png")
    np.testing.assert_array_equal(
        read_image(tmp_path / "colours.png", (3, 28, 28), "uint8"), colours.transpose(2, 0, 1)
    )


def test_coloured_photograph_becomes_grey(tmp_path: Path) -> None:
    grey = np.full((56, 56), 90, np.uint8)
    Image.fromarray(np.stack([grey, grey, grey], axis=2)).save(tmp_path / "photo.jpg")
    np.testing.assert_allclose(read_image(tmp_path / "photo.jpg", GREY, "uint8"), 90, atol=1)


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
    Image.fromarray(DIGIT.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png", GREY, "uint8"), DIGIT[None])


def test_transparent_shows_white(tmp_path: Path) -> None:
    black = np.zeros((28, 28, 4), np.uint8)
    black[:, :, 3] = DIGIT
    Image.fromarray(black).save(tmp_path / "ink.png")
    np.testing.assert_array_equal(read_image(tmp_path / "ink.png", GREY, "uint8", invert=True), DIGIT[None])


def test_photograph_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    upper = np.zeros((28, 28), np.uint8)
    upper[:14] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(upper).save(tmp_path / "photo.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "photo.png", GREY, "uint8"), upper[None, ::-1])


def write_bomb(path: Path, size: int) -> Path:
    """Write a PNG of `size` x `size` black pixels, some kilobytes long."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", size, size, 1, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize("size", [8193, 12_000, 30_000])
def test_picture_with_too_many_pixels_is_refused_before_it_is_decoded(tmp_path: Path, size: int) -> None:
    message = refuse(write_bomb(tmp_path / "bomb.png", size))
    assert f"at most {MAX_PIXELS:,} are decoded" in message  # and not that its pixels are missing


def break_by_cutting(content: bytes) -> bytes:
    return content[: len(content) // 2]


def break_in_the_middle(content: bytes) -> bytes:
    return content[:60] + b"\xff" * 40 + content[100:]


@pytest.mark.parametrize(
    ("name", "damage"),
    # A JPEG has no check sums.
    [("digit.png", break_by_cutting), ("digit.png", break_in_the_middle), ("digit.jpg", break_by_cutting)],
)
def test_damaged_picture(tmp_path: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / name
    Image.fromarray(DIGIT).save(path)
    path.write_bytes(damage(path.read_bytes()))
    assert "is damaged" in refuse(path)


@pytest.mark.parametrize("content", [b"", b"just text", b"GIF89a" + bytes(30), b"\x89PNG\r\n\x1a\n"])
def test_file_that_is_no_image(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.png").write_bytes(content)
    refuse(tmp_path / "file.png")


def test_path_that_is_no_file(tmp_path: Path) -> None:
    assert "No such file" in refuse(tmp_path / "missing.png")
    assert "directory" in refuse(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "neither a file" in refuse(tmp_path / "pipe")


@pytest.mark.parametrize(("shape", "dtype"), [((2, 28, 28), "uint8"), (GREY, "float32")])
def test_network_that_no_picture_is_for_wants_an_array(tmp_path: Path, shape: tuple[int, ...], dtype: str) -> None:
    Image.fromarray(DIGIT).save(tmp_path / "digit.png")
    assert "Give an .npy file with an array of shape" in refuse(tmp_path / "digit.png", shape, dtype)


def test_without_pillow_pictures_are_refused_and_arrays_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(DIGIT).save(tmp_path / "digit.png")
    save_array(tmp_path / "digit.npy", DIGIT)
    original = builtins.__import__

    def without_pillow(name: str, *rest: Any) -> Any:
        if name.startswith("PIL"):
            raise ImportError(name)
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_pillow)
    with pytest.raises(MissingPackage, match=r"pip install 'partrain\[images\]'"):
        read_image(tmp_path / "digit.png", GREY, "uint8")
    np.testing.assert_array_equal(read_image(tmp_path / "digit.npy", GREY, "uint8"), DIGIT[None])


# ---- arrays


@pytest.mark.parametrize("array", [DIGIT, DIGIT[None], DIGIT.astype(float), DIGIT.astype(np.int32), DIGIT.T.copy().T])
def test_array_of_the_networks_shape_is_taken_as_it_is(tmp_path: Path, array: NDArray[Any]) -> None:
    image = read_image(save_array(tmp_path / "x.npy", array), GREY, "uint8")
    assert (image.shape, image.dtype) == (GREY, np.float32)
    np.testing.assert_array_equal(image, DIGIT[None])


def test_array_for_a_network_of_floats_has_any_range(tmp_path: Path) -> None:
    array = np.linspace(-3, 900, 2 * 5 * 4).reshape(2, 5, 4)
    path = save_array(tmp_path / "x.npy", array)
    np.testing.assert_array_equal(read_image(path, (2, 5, 4), "float32"), array.astype(np.float32))
    assert "cannot be inverted" in refuse(path, (2, 5, 4), "float32", invert=True)


@pytest.mark.parametrize(
    ("array", "fragment"),
    [
        (np.zeros((3, 28, 28)), "(3, 28, 28); the network takes one image of shape (1, 28, 28) or (28, 28)"),
        (np.zeros((27, 28)), "(27, 28)"),
        (np.zeros(784), "(784)"),
        (np.array([{}], object), "Python objects"),
        (np.full((28, 28), "x"), "dtype <U1"),
        (np.zeros((28, 28), bool), "dtype bool"),
        (np.zeros((28, 28), complex), "dtype complex128"),
        (np.full((28, 28), np.nan), "NaN"),
        (np.full((28, 28), 1e300), "infinity"),
        (np.full((28, 28), -1), "values from -1 to -1"),
        (np.full((28, 28), 256), "values from 256 to 256"),
        (np.full((28, 28), 0.5), "values from 0 to 1; the network's images have values from 0 to 255"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_array_that_does_not_fit(tmp_path: Path, array: NDArray[Any], fragment: str) -> None:
    assert fragment in refuse(save_array(tmp_path / "x.npy", array))


def test_array_file_that_is_damaged(tmp_path: Path) -> None:
    path = save_array(tmp_path / "x.npy", DIGIT)
    for content in (b"", b"hello", path.read_bytes()[:-1]):
        path.write_bytes(content)
        refuse(path)


def test_array_with_the_channels_last_is_refused_with_the_axis_to_move(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((8, 9, 3)))
    message = refuse(tmp_path / "x.npy", (3, 8, 9))
    assert "has shape (8, 9, 3)" in message
    assert "numpy.moveaxis(array, 2, 0)" in message


def test_array_with_the_channels_last_is_taken_for_a_network_that_was_trained_on_such(tmp_path: Path) -> None:
    array = np.arange(8 * 9 * 3).reshape(8, 9, 3)
    np.save(tmp_path / "x.npy", array)
    image = read_image(tmp_path / "x.npy", (3, 8, 9), "uint8", layout="channels_last")
    np.testing.assert_array_equal(image, array.transpose(2, 0, 1))
    assert image.flags.c_contiguous


def test_array_to_prepare_is_refused_if_it_does_not_fit_into_memory(tmp_path: Path) -> None:
    np.lib.format.open_memmap(tmp_path / "x.npy", mode="w+", dtype=np.uint8, shape=(2**20, 2**20))  # a hole
    with pytest.raises(ResourceError, match="does not fit into memory"):
        read_image(tmp_path / "x.npy", GREY, "uint8", prepare="mnist")
