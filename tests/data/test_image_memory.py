"""An image is refused before it is decoded if it has too many pixels for the memory."""

from __future__ import annotations

import contextlib
import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from partrain.data.image_decoding import decode_image
from partrain.errors import DataError, ResourceError
from partrain.system.machine import MIB

SIDE = 1300


def picture(mode: str) -> PIL.Image.Image:
    return (
        PIL.Image.fromarray(np.zeros((SIDE, SIDE), np.uint16)) if mode == "I;16" else PIL.Image.new(mode, (SIDE,) * 2)
    )


@pytest.mark.parametrize(
    ("name", "mode", "options", "mib"),
    [
        ("x.png", "L", {}, 15),
        ("x.png", "I;16", {}, 15),
        ("x.png", "I;16", {"transparency": 3}, 31),
        ("x.png", "RGBA", {}, 31),
        ("x.png", "P", {"transparency": 0}, 31),
        ("x.jpg", "RGB", {}, 15),
        ("x.jpg", "CMYK", {"progressive": True}, 27),
        ("x.bmp", "RGB", {}, 15),
        ("x.gif", "P", {}, 15),
        ("x.tif", "RGB", {"compression": "tiff_deflate"}, 15),
        ("x.webp", "RGB", {}, 27),
        ("x.webp", "RGBA", {"lossless": True}, 40),
    ],
)
def test_image_that_does_not_fit_into_memory_is_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, mode: str, options: dict[str, Any], mib: int
) -> None:
    path = tmp_path / name
    picture(mode).save(path, **options)
    assert decode_image(path, (1, 4, 4)).shape == (1, 4, 4)
    monkeypatch.setattr("partrain.system.memory_limits.available_memory", lambda: 9 * MIB)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", pytest.fail)
    with pytest.raises(ResourceError, match=f"it needs {mib} MiB, and 9 MiB are available. Make the image smaller"):
        decode_image(path, (1, 4, 4))


def write_tiled_tiff(path: Path, tile: int, content: bytes) -> Path:
    """Write a grey TIFF of 8 x 8 pixels in one compressed tile, from the description of the format."""
    data = zlib.compress(content)
    shorts = {256: 8, 257: 8, 258: 8, 259: 8, 262: 1, 277: 1}
    longs = {322: tile, 323: tile, 324: 8, 325: len(data)}
    entries = [struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in shorts.items()]
    entries += [struct.pack("<HHII", tag, 4, 1, value) for tag, value in longs.items()]
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<I", 0)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory)
    return path


def test_tile_of_a_tiff_counts_with_all_its_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tiled_tiff(tmp_path / "x.tif", 1024, bytes(1024 * 1024))
    assert path.stat().st_size < 5000
    assert not decode_image(path, (1, 8, 8)).any()
    monkeypatch.setattr("partrain.system.memory_limits.available_memory", lambda: 8 * MIB)
    with pytest.raises(ResourceError, match="it needs 9 MiB, and 8 MiB"):
        decode_image(path, (1, 8, 8))
    with pytest.raises(DataError, match="has 16,384 x 16,384 pixels"):
        decode_image(write_tiled_tiff(tmp_path / "y.tif", 16384, b""), (1, 8, 8))


def test_16_bit_image_is_rounded_in_little_memory(tmp_path: Path) -> None:
    side = 2048
    path = tmp_path / "x.png"
    PIL.Image.fromarray(np.full((side, side), 0x8000, np.uint16)).save(path)
    tracemalloc.start()
    try:
        image = decode_image(path, (1, 4, 4))
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (image == round(0x8000 / 257)).all()
    assert peak_bytes < 6 * side * side


def test_pixels_are_freed_before_another_thread_may_decode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    original = PIL.Image.open

    def remember(*arguments: Any, **options: Any) -> PIL.Image.Image:
        opened.append(original(*arguments, **options))
        return opened[-1]

    @contextlib.contextmanager
    def reserved(*_: object) -> Iterator[None]:
        yield
        with pytest.raises(ValueError, match="closed image"):
            opened[0].getpixel((0, 0))

    monkeypatch.setattr("PIL.Image.open", remember)
    monkeypatch.setattr("partrain.system.memory_limits.MemoryBudget.reserved", reserved)
    picture("L").save(tmp_path / "x.png")
    assert decode_image(tmp_path / "x.png", (1, 4, 4)).shape == (1, 4, 4)
    assert opened
