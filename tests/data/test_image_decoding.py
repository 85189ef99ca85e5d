from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from partrain.data.image_decoding import decode_image
from partrain.errors import DataError

COLOURS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [90, 90, 90]]], np.uint8)


def save(path: Path, picture: PIL.Image.Image, **options: object) -> Path:
    picture.save(path, **options)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("ending", ["png", "bmp", "webp"])
def test_formats_without_loss_give_the_pixels(tmp_path: Path, ending: str) -> None:
    path = save(
        tmp_path / f"x.{ending}", PIL.Image.fromarray(COLOURS), **({"lossless": True} if ending == "webp" else {})
    )
    np.testing.assert_array_equal(decode_image(path, (3, 2, 2)), COLOURS.transpose(2, 0, 1))


def test_colour_becomes_luma_and_grey_three_equal_channels(tmp_path: Path) -> None:
    path = save(tmp_path / "x.png", PIL.Image.fromarray(COLOURS))
    np.testing.assert_array_equal(decode_image(path, (1, 2, 2)), [[[76, 150], [29, 90]]])
    path = save(tmp_path / "y.png", PIL.Image.fromarray(COLOURS[:, :, 0]))
    np.testing.assert_array_equal(decode_image(path, (3, 2, 2)), np.stack([COLOURS[:, :, 0]] * 3))


def test_palette_and_cmyk_are_converted(tmp_path: Path) -> None:
    path = save(tmp_path / "x.png", PIL.Image.fromarray(COLOURS).convert("P", palette=PIL.Image.Palette.ADAPTIVE))
    np.testing.assert_array_equal(decode_image(path, (3, 2, 2)), COLOURS.transpose(2, 0, 1))
    flat = PIL.Image.new("RGB", (16, 16), (200, 30, 30))
    path = save(tmp_path / "x.jpg", flat.convert("CMYK"), quality=100)
    assert abs(decode_image(path, (3, 4, 4)).astype(int) - np.array([200, 30, 30])[:, None, None]).max() <= 4


def test_first_frame_of_an_animation_counts(tmp_path: Path) -> None:
    frames = [PIL.Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for ending, options in (("webp", {"lossless": True}), ("png", {})):
        path = save(tmp_path / f"x.{ending}", frames[0], save_all=True, append_images=frames[1:], **options)
        assert decode_image(path, (3, 1, 1)).ravel().tolist() == [255, 0, 0]


def test_rectangle_is_rows_by_columns_and_the_whole_image_is_fitted_in(tmp_path: Path) -> None:
    wide = np.zeros((10, 40), np.uint8)
    wide[:, 20:] = 200
    image = decode_image(save(tmp_path / "x.png", PIL.Image.fromarray(wide)), (1, 6, 4))
    assert image.shape == (1, 6, 4)
    assert image[0, :, [0, 3]].tolist() == [[0] * 6, [200] * 6]


def png_of(width: int, height: int) -> bytes:
    """Return a PNG that claims a size, with hardly any content."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(30_000, 30_000), (8_200, 8_200)])
def test_image_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(png_of(*size))
    with pytest.raises(DataError, match="at most 67,108,864 are decoded"):
        decode_image(path, (3, 8, 8))


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "webp"])
def test_image_that_is_cut_off_is_damaged(tmp_path: Path, ending: str) -> None:
    noise = np.random.Generator(np.random.Philox(key=0)).integers(0, 256, (64, 64, 3), np.uint8)
    path = save(tmp_path / f"x.{ending}", PIL.Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(DataError, match=r"is damaged|is not a PNG"):
        decode_image(path, (3, 8, 8))


def test_image_that_may_not_be_read_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("PIL.Image.open", refuse)
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        decode_image(tmp_path / "x.png", (3, 8, 8))
