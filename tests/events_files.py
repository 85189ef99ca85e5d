"""Reads files of TensorBoard events, and checks their checksums."""

from __future__ import annotations

import struct
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event


def crc32c(data: bytes) -> int:
    """Return the checksum of RFC 3720, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def records_of(data: bytes) -> list[bytes]:
    """Return the records of a TFRecord file: length, its checksum, content, its checksum."""

    def masked_crc(part: bytes) -> bytes:
        crc = crc32c(part)
        return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    records = []
    while data:
        length = int.from_bytes(data[:8], "little")
        content, rest = data[12 : 12 + length], data[12 + length :]
        assert data[8:12] == masked_crc(data[:8])
        assert rest[:4] == masked_crc(content)
        records.append(content)
        data = rest[4:]
    return records


def events_in(directory: Path) -> list[Event]:
    """Return the events of all files in a directory, in the order in which TensorBoard reads them."""
    files = sorted(directory.iterdir())
    return [Event.FromString(record) for file in files for record in records_of(file.read_bytes())]


def scalars_in(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """Return step and value of all scalars in a directory, by tag."""
    scalars: dict[str, list[tuple[int, float]]] = {}
    for event in events_in(directory):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                scalars.setdefault(value.tag, []).append((event.step, value.simple_value))
    return scalars
