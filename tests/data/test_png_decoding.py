"""PNG files of all colour types and bit depths are decoded as the specification says."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from partrain.data.image_decoding import decode_image
from tests.data.png_codec import CHANNELS, DEPTHS, GREY, GREY_ALPHA, PALETTE, RGB, RGBA, Png, decode

HEIGHT, WIDTH = 11, 9
KINDS = [(colour_type, depth) for colour_type, depths in DEPTHS.items() for depth in depths]


def random_png(colour_type: int, depth: int, *, transparent: bool, interlaced: bool) -> Png:
    """Return an image in which the transparent value occurs, as do values that differ from it by one bit."""
    rng = np.random.Generator(np.random.Philox(key=[colour_type, depth]))
    samples = rng.integers(0, 2**depth, (HEIGHT, WIDTH, CHANNELS[colour_type]))
    png = Png(colour_type, depth, samples, interlaced=interlaced)
    if colour_type == PALETTE:
        png.palette = [tuple(entry) for entry in rng.integers(0, 256, (2**depth, 3)).tolist()]
        png.transparency = rng.integers(0, 256, 2**depth).tolist() if transparent else None
    elif transparent and colour_type in (GREY, RGB):
        value = rng.integers(0, 2**depth, CHANNELS[colour_type])
        samples[::3] = value
        samples[1::3, ::2] = value ^ 1
        png.transparency = value.tolist()
    return png


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize(("colour_type", "depth"), KINDS)
def test_pixels_are_those_of_a_decoder_written_from_the_specification(
    tmp_path: Path, colour_type: int, depth: int, transparent: bool, interlaced: bool
) -> None:
    data = random_png(colour_type, depth, transparent=transparent, interlaced=interlaced).encode()
    (tmp_path / "x.png").write_bytes(data)
    expected = decode(data).over_white()
    image = decode_image(tmp_path / "x.png", (3, HEIGHT, WIDTH)).transpose(1, 2, 0)
    # Rounded once; of 16-bit colour and alpha the high byte is taken; a mixture with white is rounded again.
    tolerance = 0.5
    if depth == 16 and colour_type != GREY:
        tolerance = 1.0
    if colour_type in (GREY_ALPHA, RGBA) or (colour_type == PALETTE and transparent):
        tolerance = 1.0 if depth <= 8 else 2.0
    np.testing.assert_allclose(image, expected, atol=tolerance)
    luma = expected @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(decode_image(tmp_path / "x.png", (1, HEIGHT, WIDTH))[0], luma, atol=tolerance + 1)


@pytest.mark.parametrize(("colour_type", "depth"), [(GREY, 1), (GREY, 2), (GREY, 4), (GREY, 8), (GREY, 16), (RGB, 16)])
def test_value_that_is_declared_transparent_becomes_white_and_no_other(
    tmp_path: Path, colour_type: int, depth: int
) -> None:
    for value in {0, 1, 2**depth // 2, 2**depth - 2, 2**depth - 1} & set(range(2**depth)):
        samples = np.full((HEIGHT, WIDTH, CHANNELS[colour_type]), value)
        samples[:, 5:] = 1 - value if depth == 1 else (value + 2**depth // 2 + 1) % 2**depth
        png = Png(colour_type, depth, samples, transparency=[value] * CHANNELS[colour_type])
        (tmp_path / "x.png").write_bytes(png.encode())
        image = decode_image(tmp_path / "x.png", (1, HEIGHT, WIDTH))[0]
        assert (image[:, :5] == 255).all()
        other = samples[0, 5, 0]
        assert (image[:, 5:] == (round(other * 255 / (2**depth - 1)) if colour_type == GREY else other >> 8)).all()


@pytest.mark.parametrize(("colour_type", "depth"), [(GREY, 16), (RGB, 16), (GREY_ALPHA, 8), (RGBA, 16)])
def test_transparency_is_turned_with_the_image(tmp_path: Path, colour_type: int, depth: int) -> None:
    data = random_png(colour_type, depth, transparent=True, interlaced=False).encode()
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise
    body = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = len(body).to_bytes(4, "big") + b"eXIf" + body
    chunk += zlib.crc32(chunk[4:]).to_bytes(4, "big")
    (tmp_path / "x.png").write_bytes(data[:33] + chunk + data[33:])
    image = decode_image(tmp_path / "x.png", (3, WIDTH, HEIGHT)).transpose(1, 2, 0)
    np.testing.assert_allclose(image, np.rot90(decode(data).over_white(), -1), atol=2.0)
