"""Checkpoints: one safetensors file each, with a digest that detects every altered bit.

A file holds the tensors and, under the single metadata key "partrain", canonical JSON (sorted keys, no spaces): the
caller's metadata, `format`, and `file_sha256`. The digest is the SHA-256 of the whole file with the digest's own 64
characters taken as zeros, so that it covers header and payload. Nothing in a file is parsed before the digest has been
verified. Every format keeps this rule.

There is a single metadata key because safetensors keeps several in no fixed order, and equal states must give equal
files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from partrain.errors import RunError
from partrain.system.memory_limits import read_whole

if TYPE_CHECKING:  # `encode` and `decode` import NumPy; a command that only lists runs needs neither
    from numpy.typing import NDArray

CHECKPOINT_FORMAT = 1

# The names of the optimizer's vectors are these prefixes plus the parameter's name: Adam's moments; and the momentum of
# SGD and Muon.
FIRST_MOMENT_PREFIX = "adam.first_moment."
SECOND_MOMENT_PREFIX = "adam.second_moment."
MOMENTUM_PREFIX = "momentum."
# That of the averaged weights.
AVERAGE_PREFIX = "ema."

_PIECE_BYTES = 2**20
# JSON takes up to twenty times its size in memory. The names of 65,536 classes have room.
_MAX_HEADER_BYTES = 32 * 1024**2

_METADATA_KEY = "partrain"
_RESERVED_NAMES = ("format", "file_sha256")
_BLANK_DIGEST = b"0" * 64
# The field in the header: a JSON string within JSON, its quotes escaped. Only a key of the metadata can look like this;
# text in a value has its backslashes escaped once more.
_DIGEST_FIELD = re.compile(rb'\\"file_sha256\\":\\"([0-9a-f]{64})\\"')


class CorruptCheckpoint(RunError):
    """A file is truncated or altered, or is not a checkpoint."""


@dataclass
class Checkpoint:
    """The state of a run after a step.

    Parameters
    ----------
    tensors : arrays of numbers by name: parameters ("conv1.weight"), and the optimizer's moments
        ("adam.first_moment.conv1.weight").
    metadata : everything else, as JSON: `step` (required, an integer >= 0), epoch, seed, and so on; floats are finite.
        Keys are strings, and a tuple is read back as a list. The names "format" and "file_sha256" are reserved.
    """

    tensors: dict[str, NDArray[Any]]
    metadata: dict[str, Any]

    @property
    def step(self) -> int:
        """The number of completed steps."""
        step: int = self.metadata["step"]
        return step


def is_parameter(name: str) -> bool:
    """Return whether a tensor of a checkpoint is a parameter, not a moment of the optimizer nor an average."""
    return not name.startswith((FIRST_MOMENT_PREFIX, SECOND_MOMENT_PREFIX, MOMENTUM_PREFIX, AVERAGE_PREFIX))


def encode(checkpoint: Checkpoint) -> bytes:
    """Return the content of the checkpoint's file; equal states give equal bytes.

    Raises
    ------
    ValueError
        The metadata has no step, uses a reserved name, or contains a float that is not finite.
    TypeError
        The metadata contains a value that JSON does not have.
    """
    import numpy as np
    import safetensors.numpy

    metadata = checkpoint.metadata
    if not _is_step(metadata.get("step")):
        raise ValueError("the metadata of a checkpoint needs a step, an integer that is not negative")
    if any(name in metadata for name in _RESERVED_NAMES):
        raise ValueError(f"the names {_RESERVED_NAMES} are reserved in the metadata of a checkpoint")
    own_fields = {"format": CHECKPOINT_FORMAT, "file_sha256": _BLANK_DIGEST.decode()}
    metadata_json = json.dumps(metadata | own_fields, sort_keys=True, separators=(",", ":"), allow_nan=False)
    # safetensors reads raw memory, which must be in C order.
    tensors = {name: np.asarray(tensor, order="C") for name, tensor in checkpoint.tensors.items()}
    blank = safetensors.numpy.save(tensors, metadata={_METADATA_KEY: metadata_json})
    span = _digest_span(blank)
    if span is None:
        raise ValueError('a name in the checkpoint looks like the digest field "file_sha256"')
    start, end = span
    return b"".join((blank[:start], _digest(blank, start, end), memoryview(blank)[end:]))


def decode(data: bytes, name: str) -> Checkpoint:
    """Return the checkpoint in the content of a file, after verifying its digest.

    Parameters
    ----------
    data : the whole file.
    name : the file's name in error messages.

    Returns
    -------
    The checkpoint. Its arrays are writable, in C order and native byte order, and share no memory with `data`.

    Raises
    ------
    CorruptCheckpoint
        The file is truncated, extended or altered, or is not a checkpoint.
    RunError
        A newer partrain wrote it, in a format that this one does not know.
    """
    import numpy as np
    import safetensors.numpy

    span = _digest_span(data)
    if span is None:
        raise CorruptCheckpoint(f"{name}: is truncated or altered, or is not a checkpoint: its header has no digest.")
    start, end = span
    if _digest(data, start, end) != data[start:end]:
        raise CorruptCheckpoint(f"{name}: is truncated or altered: its content does not match its digest.")
    try:
        header = json.loads(data[8 : 8 + _header_length(data)])
        metadata = json.loads(header["__metadata__"][_METADATA_KEY])
        file_format = metadata["format"]
        if isinstance(file_format, int) and file_format > CHECKPOINT_FORMAT:
            raise RunError(
                f"{name}: has format {file_format}, and this partrain knows formats up to "
                f"{CHECKPOINT_FORMAT}: a newer partrain wrote it. Upgrade partrain to use it."
            )
        if file_format != CHECKPOINT_FORMAT or not _is_step(metadata["step"]):
            raise ValueError("format or step")
        views = safetensors.numpy.load(data)
    # The digest is right, so the file is as it was written: another program wrote something else.
    except (ValueError, TypeError, LookupError, RecursionError, safetensors.SafetensorError) as error:
        raise CorruptCheckpoint(f"{name}: is not a checkpoint of partrain ({error}).") from error
    return Checkpoint(
        tensors={tensor_name: np.array(view, order="C") for tensor_name, view in views.items()},
        metadata={key: value for key, value in metadata.items() if key not in _RESERVED_NAMES},
    )


def has_digest(data: bytes) -> bool:
    """Return whether the content of a file says that it is a checkpoint: only checkpoints have a digest."""
    return _digest_span(data) is not None


def load(path: Path) -> Checkpoint:
    """Return the checkpoint in a file.

    Raises
    ------
    OSError
        The file cannot be read.
    ResourceError
        It does not fit into memory.
    CorruptCheckpoint, RunError
        As `decode`.
    """
    # The content, safetensors' copy of it, and the arrays.
    content = read_whole(path, 3, "Check that it is a checkpoint, or free some memory.")
    return decode(content, str(path))


@contextlib.contextmanager
def open_tensors(path: Path) -> Iterator[Callable[[str], NDArray[Any]]]:
    """Open a checkpoint's tensors: within the block, the function that this returns reads one of them by its name.

    The digest is not verified: see `is_intact`. The file must not be written within the block; partrain replaces
    checkpoints, and never writes into them.

    Raises
    ------
    CorruptCheckpoint
        The file is no file of tensors, or it has no tensor of this name.
    OSError
        The file cannot be read.
    """
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            yield file.get_tensor
    except safetensors.SafetensorError as error:
        raise CorruptCheckpoint(f"{path}: is truncated or altered, or is not a checkpoint: {error}.") from error


def is_intact(path: Path) -> bool:
    """Return whether the content of a checkpoint's file matches its digest; the file is read piece by piece.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    with open(path, "rb") as file:
        header = file.read(8)
        if len(header) == 8 and _header_length(header) <= _MAX_HEADER_BYTES:
            header += file.read(_header_length(header))
        span = _digest_span(header)
        if span is None:
            return False
        start, end = span
        sha256 = hashlib.sha256(header[:start] + _BLANK_DIGEST + header[end:])
        while piece := file.read(_PIECE_BYTES):
            sha256.update(piece)
    return sha256.hexdigest().encode() == header[start:end]


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a checkpoint's tensors by name, from the file's header alone.

    The digest is not verified, because that would read the whole file.

    Raises
    ------
    CorruptCheckpoint
        The header is damaged.
    OSError
        The file cannot be read.
    """
    damaged = f"{path}: is truncated or altered, or is not a checkpoint"
    with open(path, "rb") as file:
        start = file.read(8)
        if len(start) < 8 or _header_length(start) > min(path.stat().st_size - 8, _MAX_HEADER_BYTES):
            raise CorruptCheckpoint(f"{damaged}.")
        data = file.read(_header_length(start))
    try:
        header: Mapping[str, Any] = json.loads(data)
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        shapes = {name: tuple(entry["shape"]) for name, entry in tensors.items()}
        if not all(isinstance(size, int) and 0 <= size < 2**63 for shape in shapes.values() for size in shape):
            raise ValueError("a shape is invalid")
        return shapes
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise CorruptCheckpoint(f"{damaged}: {error}.") from error


def _is_step(step: object) -> bool:
    return isinstance(step, int) and not isinstance(step, bool) and step >= 0


def _header_length(data: bytes) -> int:
    length: int = struct.unpack_from("<Q", data)[0]
    return length


def _digest_span(data: bytes) -> tuple[int, int] | None:
    """Return where the digest begins and ends in the file; None unless the header contains exactly one."""
    if len(data) < 8 or _header_length(data) > min(len(data) - 8, _MAX_HEADER_BYTES):
        return None
    fields = list(_DIGEST_FIELD.finditer(data, 8, 8 + _header_length(data)))
    return fields[0].span(1) if len(fields) == 1 else None


def _digest(data: bytes, start: int, end: int) -> bytes:
    """Return the SHA-256 of `data` with the character 0 from `start` to `end`, in hexadecimal."""
    sha256 = hashlib.sha256(data[:start] + _BLANK_DIGEST)
    sha256.update(memoryview(data)[end:])
    return sha256.hexdigest().encode()
