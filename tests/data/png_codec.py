"""A PNG encoder and decoder, written from the specification alone (W3C, "Portable Network Graphics", third edition).

They are slow and plain: what Pillow decodes is compared with what they decode. Section numbers are those of the
specification.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Colour type -> number of channels, and the allowed bit depths (11.2.1).
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
DEPTHS = {GREY: (1, 2, 4, 8, 16), RGB: (8, 16), PALETTE: (1, 2, 4, 8), GREY_ALPHA: (8, 16), RGBA: (8, 16)}
# First row, first column, step of rows and step of columns of each pass (8.2).
WHOLE = ((0, 0, 1, 1),)
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


@dataclass
class Png:
    """The samples of an image, int (H,W,channels), as a file stores them.

    `palette` is RGB (entries,3). `transparency` is the content of tRNS: one sample per channel, or an alpha value for
    each of the first entries of the palette.
    """

    colour_type: int
    depth: int
    samples: NDArray[np.int64]
    palette: list[tuple[int, int, int]] | None = None
    transparency: list[int] | None = None
    interlaced: bool = False

    def encode(self) -> bytes:
        """Return the file. Row k of a pass has filter k modulo 5."""
        height, width, _ = self.samples.shape
        header = struct.pack(">IIBBBBB", width, height, self.depth, self.colour_type, 0, 0, self.interlaced)
        content = b"".join(
            _filtered(self._packed(self.samples[first::step, left::stride]), self._unit())
            for first, left, step, stride in (ADAM7 if self.interlaced else WHOLE)
        )
        chunks = [_chunk(b"IHDR", header)]
        if self.palette is not None:
            chunks.append(_chunk(b"PLTE", bytes(value for entry in self.palette for value in entry)))
        if self.transparency is not None:
            form = ">B" if self.colour_type == PALETTE else ">H"
            chunks.append(_chunk(b"tRNS", b"".join(struct.pack(form, value) for value in self.transparency)))
        return SIGNATURE + b"".join([*chunks, _chunk(b"IDAT", zlib.compress(content)), _chunk(b"IEND", b"")])

    def over_white(self) -> NDArray[np.float64]:
        """Return red, green and blue (H,W,3) from 0 to 255, not rounded, over a white background."""
        largest = 2**self.depth - 1
        samples = self.samples
        alpha = np.ones(samples.shape[:2])
        if self.colour_type == PALETTE:
            assert self.palette is not None
            given = self.transparency or []
            alphas = np.array(given + [255] * (len(self.palette) - len(given)))
            colour, alpha = np.array(self.palette)[samples[:, :, 0]] / 255, alphas[samples[:, :, 0]] / 255
        elif self.colour_type in (GREY_ALPHA, RGBA):
            colour, alpha = samples[:, :, :-1] / largest, samples[:, :, -1] / largest
        else:
            colour = samples / largest
            if self.transparency is not None:
                alpha = (samples != np.array(self.transparency)).any(axis=2).astype(float)  # 11.3.1.1: all bits
        if colour.shape[2] == 1:
            colour = np.repeat(colour, 3, axis=2)
        return 255 * (colour * alpha[:, :, None] + (1 - alpha[:, :, None]))

    def _unit(self) -> int:
        """Return the distance of a byte from the one that filters refer to (9.2)."""
        return max(1, CHANNELS[self.colour_type] * self.depth // 8)

    def _packed(self, samples: NDArray[np.int64]) -> list[bytes]:
        if 0 in samples.shape:
            return []
        rows = samples.reshape(len(samples), -1)
        if self.depth == 16:
            return [row.astype(">u2").tobytes() for row in rows]
        bits = (rows[:, :, None] >> np.arange(self.depth - 1, -1, -1)) & 1
        return [np.packbits(row.ravel().astype(np.uint8)).tobytes() for row in bits]


def decode(data: bytes) -> Png:
    """Decode a file without an alpha of its own in any other chunk than tRNS."""
    chunks = list(_chunks(data))
    width, height, depth, colour_type, _, _, interlaced = struct.unpack(">IIBBBBB", dict(chunks)[b"IHDR"])
    content = zlib.decompress(b"".join(body for kind, body in chunks if kind == b"IDAT"))
    num_channels = CHANNELS[colour_type]
    samples = np.zeros((height, width, num_channels), np.int64)
    position = 0
    for first, left, step, stride in ADAM7 if interlaced else WHOLE:
        part = samples[first::step, left::stride]
        if 0 in part.shape:
            continue
        num_bytes = -(-part.shape[1] * num_channels * depth // 8)
        previous = bytes(num_bytes)
        for row in part:
            line = content[position + 1 : position + 1 + num_bytes]
            previous = _unfiltered(content[position], line, previous, max(1, num_channels * depth // 8))
            row[:] = _samples_of(previous, depth)[: row.size].reshape(row.shape)
            position += 1 + num_bytes
    assert position == len(content)
    named = dict(chunks)
    plte, trns = named.get(b"PLTE"), named.get(b"tRNS")
    palette = None if plte is None else [tuple(plte[k : k + 3]) for k in range(0, len(plte), 3)]
    transparency = None if trns is None else list(trns)
    if trns is not None and colour_type != PALETTE:
        transparency = [value & (2**depth - 1) for value in struct.unpack(f">{len(trns) // 2}H", trns)]
    return Png(colour_type, depth, samples, palette, transparency, bool(interlaced))  # type: ignore[arg-type]


def _samples_of(line: bytes, depth: int) -> NDArray[np.int64]:
    if depth == 16:
        return np.frombuffer(line, ">u2").astype(np.int64)
    bits = np.unpackbits(np.frombuffer(line, np.uint8)).reshape(-1, depth)
    return bits.astype(np.int64) @ (1 << np.arange(depth - 1, -1, -1))


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = len(SIGNATURE)
    while position < len(data):
        (length,) = struct.unpack_from(">I", data, position)
        yield data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        position += 12 + length


def _predicted(kind: int, left: int, above: int, corner: int) -> int:
    """Return what a filter subtracts from a byte (9.2)."""
    if kind == 4:
        estimate = left + above - corner
        return min((left, above, corner), key=lambda value: abs(estimate - value))
    return (0, left, above, (left + above) // 2)[kind]


def _filtered(lines: list[bytes], unit: int) -> bytes:
    result = bytearray()
    previous = bytes(len(lines[0]) if lines else 0)
    for number, line in enumerate(lines):
        kind = number % 5
        result.append(kind)
        for k, value in enumerate(line):
            left, corner = (line[k - unit], previous[k - unit]) if k >= unit else (0, 0)
            result.append((value - _predicted(kind, left, previous[k], corner)) % 256)
        previous = line
    return bytes(result)


def _unfiltered(kind: int, line: bytes, previous: bytes, unit: int) -> bytes:
    result = bytearray()
    for k, value in enumerate(line):
        left, corner = (result[k - unit], previous[k - unit]) if k >= unit else (0, 0)
        result.append((value + _predicted(kind, left, previous[k], corner)) % 256)
    return bytes(result)
