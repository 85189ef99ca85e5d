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


@pytest.mark.parametrize("ending", ["png", "bmp", "webp", "gif", "tif", "tiff"])
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
    for ending, options in (("webp", {"lossless": True}), ("png", {}), ("gif", {}), ("tif", {})):
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


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "webp", "gif", "tif"])
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


@pytest.mark.parametrize("kind", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_tiff_of_each_kind_of_pixels_gives_what_a_png_gives(tmp_path: Path, kind: str) -> None:
    image = PIL.Image.fromarray(COLOURS).convert(kind)
    path = save(tmp_path / "x.tif", image)
    expected = decode_image(save(tmp_path / "x.png", image.convert("RGBA" if kind == "LA" else "RGB")), (3, 2, 2))
    np.testing.assert_array_equal(decode_image(path, (3, 2, 2)), expected)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_tiff_is_read_with_any_compression(tmp_path: Path, compression: str | None) -> None:
    path = save(tmp_path / "x.tif", PIL.Image.fromarray(COLOURS), compression=compression)
    np.testing.assert_array_equal(decode_image(path, (3, 2, 2)), COLOURS.transpose(2, 0, 1))


@pytest.mark.parametrize(("kind", "order"), [("I;16", "<u2"), ("I;16B", ">u2")])
def test_tiff_of_16_bits_is_rounded_to_8(tmp_path: Path, kind: str, order: str) -> None:
    values = np.array([[0, 128], [129, 65535]], order)
    path = save(tmp_path / "x.tif", PIL.Image.frombytes(kind, (2, 2), values.tobytes()))
    assert decode_image(path, (1, 2, 2)).tolist() == [[[0, 0], [1, 255]]]


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_tiff_of_numbers_without_a_fixed_range_is_refused(tmp_path: Path, dtype: type) -> None:
    path = save(tmp_path / "x.tif", PIL.Image.fromarray(np.ones((2, 2), dtype)))
    with pytest.raises(DataError, match="Convert it to 8 or 16 bits per channel"):
        decode_image(path, (1, 2, 2))


def test_transparent_part_of_a_gif_is_white(tmp_path: Path) -> None:
    opacity = np.array([[0, 255], [255, 255]], np.uint8)
    path = save(tmp_path / "x.gif", PIL.Image.fromarray(np.dstack([COLOURS, opacity])))
    assert decode_image(path, (3, 2, 2))[:, 0].T.tolist() == [[255, 255, 255], [0, 255, 0]]


@pytest.mark.parametrize("ending", ["tif", "png"])
def test_image_is_turned_once_as_its_camera_says(tmp_path: Path, ending: str) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / f"x.{ending}", PIL.Image.fromarray(COLOURS), exif=exif)
    np.testing.assert_array_equal(decode_image(path, (3, 2, 2)), np.rot90(COLOURS, -1).transpose(2, 0, 1))


def test_jfif_is_a_jpeg(tmp_path: Path) -> None:
    path = save(tmp_path / "x.jfif", PIL.Image.new("RGB", (16, 16), (200, 30, 30)), format="JPEG", quality=100)
    assert abs(decode_image(path, (3, 4, 4)).astype(int) - np.array([200, 30, 30])[:, None, None]).max() <= 4
