"""Checkpoints: one safetensors file each, whose digest finds every altered bit.

A file `step-<step>.safetensors` holds the tensors and, under the one metadata key "partrain", canonical JSON
(sorted keys, no spaces): the caller's metadata, `format`, and `file_sha256`. The digest is the SHA-256 of the
whole file with the digest's own 64 characters taken as zeros, so that header and payload are both under it.
Nothing in a file is parsed before the digest is found right. Every format keeps this rule.

One metadata key, because safetensors keeps several in no fixed order, and equal states are equal files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from partrain.errors import RunError
from partrain.system.durable_files import sweep_temporaries, write_durably

CHECKPOINT_FORMAT = 1

_METADATA_KEY = "partrain"
_RESERVED_NAMES = ("format", "file_sha256")
_BLANK_DIGEST = b"0" * 64
# The field as it stands in the header: a string of JSON within JSON, its quotes escaped. Only a key of the
# metadata can look like this; text in a value has its backslashes escaped once more.
_DIGEST_FIELD = re.compile(rb'\\"file_sha256\\":\\"([0-9a-f]{64})\\"')
_FILE_NAME = re.compile(r"step-(\d{8,})\.safetensors")


class CorruptCheckpoint(RunError):
    """A checkpoint file is truncated, altered, or no checkpoint."""


@dataclass
class Checkpoint:
    """The state of a run after a step.

    Parameters
    ----------
    tensors : arrays of numbers by name: parameters ("conv1.weight"), and the optimizer's moments
        ("adam.first_moment.conv1.weight").
    metadata : what is no array, as JSON has it: `step` (required, an integer >= 0), epoch, seed, and so on;
        floats are finite. Keys are strings, and a tuple comes back as a list. The names "format" and
        "file_sha256" belong to the file.
    """

    tensors: dict[str, NDArray[Any]]
    metadata: dict[str, Any]

    @property
    def step(self) -> int:
        """The number of steps done."""
        step: int = self.metadata["step"]
        return step


def encode(checkpoint: Checkpoint) -> bytes:
    """Return the content of the checkpoint's file; equal states are equal bytes.

    Raises
    ------
    ValueError : the metadata has no step, uses a reserved name, or holds a float that is not finite.
    TypeError : the metadata holds something that JSON does not have.
    """
    metadata = checkpoint.metadata
    if not _is_step(metadata.get("step")):
        raise ValueError("a checkpoint's metadata has a step, an integer that is not negative")
    if any(name in metadata for name in _RESERVED_NAMES):
        raise ValueError(f"the names {_RESERVED_NAMES} belong to the checkpoint's file")
    own_fields = {"format": CHECKPOINT_FORMAT, "file_sha256": _BLANK_DIGEST.decode()}
    metadata_json = json.dumps(metadata | own_fields, sort_keys=True, separators=(",", ":"), allow_nan=False)
    # safetensors reads raw memory, which must be in C order.
    tensors = {name: np.asarray(tensor, order="C") for name, tensor in checkpoint.tensors.items()}
    blank = safetensors.numpy.save(tensors, metadata={_METADATA_KEY: metadata_json})
    field = _digest_span(blank)
    if field is None:
        raise ValueError('a name in the checkpoint looks like the digest field "file_sha256"')
    start, end = field
    return b"".join((blank[:start], _digest(blank, start, end), memoryview(blank)[end:]))


def decode(data: bytes, name: str) -> Checkpoint:
    """Return the checkpoint whose file holds `data`, once its digest is found right.

    Parameters
    ----------
    data : the whole file.
    name : what messages call the file.

    Returns
    -------
    The checkpoint; its arrays are writable, in C order, of native byte order, and share nothing with `data`.

    Raises
    ------
    CorruptCheckpoint : a bit is altered, or bytes are missing or too many; or it never was a checkpoint.
    RunError : a newer partrain wrote it, in a format that this one does not know.
    """
    field = _digest_span(data)
    if field is None:
        raise CorruptCheckpoint(f"{name}: truncated, altered or no checkpoint: its header has no digest.")
    start, end = field
    if _digest(data, start, end) != data[start:end]:
        raise CorruptCheckpoint(f"{name}: truncated or altered: its content does not match its digest.")
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
    # The digest is right, so somebody made this file so: whatever is wrong in it, it is no checkpoint.
    except (ValueError, TypeError, LookupError, RecursionError, safetensors.SafetensorError) as error:
        raise CorruptCheckpoint(f"{name}: no checkpoint of partrain ({error}).") from error
    return Checkpoint(
        tensors={tensor_name: np.array(view, order="C") for tensor_name, view in views.items()},
        metadata={key: value for key, value in metadata.items() if key not in _RESERVED_NAMES},
    )


def _is_step(step: object) -> bool:
    return isinstance(step, int) and not isinstance(step, bool) and step >= 0


def _header_length(data: bytes) -> int:
    length: int = struct.unpack_from("<Q", data)[0]
    return length


def _digest_span(data: bytes) -> tuple[int, int] | None:
    """Return where the digest stands in the file, or None where not exactly one stands in the header."""
    if len(data) < 8 or _header_length(data) > len(data) - 8:
        return None
    fields = list(_DIGEST_FIELD.finditer(data, 8, 8 + _header_length(data)))
    return fields[0].span(1) if len(fields) == 1 else None


def _digest(data: bytes, start: int, end: int) -> bytes:
    """Return the SHA-256 of `data` with zeros (as characters) from `start` to `end`, in hexadecimal."""
    sha256 = hashlib.sha256(data[:start] + _BLANK_DIGEST)
    sha256.update(memoryview(data)[end:])
    return sha256.hexdigest().encode()


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return where the checkpoint of a step is, or would be."""
    return folder / f"step-{step:08d}.safetensors"


def save(folder: Path, checkpoint: Checkpoint) -> Path:
    """Save a checkpoint in `folder`; when this returns, it survives a crash and a power failure.

    Returns
    -------
    The file's path.

    Raises
    ------
    OSError : the disk is full, an I/O error. The temporary file is gone, and older checkpoints are untouched.
    """
    path = checkpoint_path(folder, checkpoint.step)
    write_durably(path, encode(checkpoint))
    return path


def load(path: Path) -> Checkpoint:
    """Return the checkpoint in a file.

    Raises
    ------
    OSError : the file cannot be read.
    CorruptCheckpoint, RunError : as `decode`.
    """
    return decode(path.read_bytes(), str(path))


def newest_good(folder: Path, warn: Callable[[str], None]) -> tuple[Checkpoint, Path] | None:
    """Return the checkpoint with the highest step that can be loaded, and its file; None if there is none.

    Parameters
    ----------
    folder : the run's folder of checkpoints; one that does not exist holds none.
    warn : gets a message about each file that is damaged, and is passed over.

    Raises
    ------
    RunError : a newer partrain wrote the newest good file.
    """
    for path in reversed(_checkpoint_files(folder)):
        try:
            return load(path), path
        except FileNotFoundError:
            # A training that goes on has just saved a newer one and deleted this.
            return newest_good(folder, warn)
        except CorruptCheckpoint as error:
            warn(f"{error} It is passed over.")
        except OSError as error:
            warn(f"{path}: cannot be read: {error.strerror}. It is passed over.")
    return None


def has_any(folder: Path) -> bool:
    """Return whether there is a checkpoint in `folder`, good or not."""
    return bool(_checkpoint_files(folder))


def names(folder: Path) -> list[str]:
    """Return the names of the checkpoint files in `folder`, good or not, in the order of their steps."""
    return [path.name for path in _checkpoint_files(folder)]


def newest_shapes(folder: Path) -> dict[str, tuple[int, ...]] | None:
    """Return the shapes of the newest checkpoint's tensors by name, from its header alone; None if there is none.

    The digest is not verified: that would mean to read the whole file.

    Raises
    ------
    CorruptCheckpoint : the header is damaged.
    OSError : the file cannot be read.
    """
    files = _checkpoint_files(folder)
    if not files:
        return None
    with open(files[-1], "rb") as file:
        start = file.read(8)
        if len(start) < 8 or _header_length(start) > files[-1].stat().st_size - 8:
            raise CorruptCheckpoint(f"{files[-1]}: truncated, altered or no checkpoint.")
        data = file.read(_header_length(start))
    try:
        header = json.loads(data)
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        return {name: tuple(int(size) for size in entry["shape"]) for name, entry in tensors.items()}
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise CorruptCheckpoint(f"{files[-1]}: truncated, altered or no checkpoint: {error}.") from error


def prune(folder: Path, *, newest: Path, keep_last: int, best_step: int | None) -> None:
    """Delete the checkpoints that need not be kept, after `newest` was saved.

    Files of later steps than `newest` go as well: the run was resumed from an earlier file, so they were
    found damaged, and must not count among the last.

    Parameters
    ----------
    folder : the run's folder of checkpoints.
    newest : the file that was just saved; always kept.
    keep_last : how many files to keep, counted back from `newest`; at least 1.
    best_step : the step whose file is kept besides, if there is one.

    Raises
    ------
    OSError : a file cannot be deleted.
    """
    if keep_last < 1:
        raise ValueError("keep_last is at least 1")
    not_later = [path for path in _checkpoint_files(folder) if _step_in(path) <= _step_in(newest)]
    best = set() if best_step is None else {checkpoint_path(folder, best_step)}
    delete_others(folder, {newest, *not_later[-keep_last:], *best})


def delete_others(folder: Path, keep: set[Path]) -> None:
    """Delete all checkpoints but `keep`, and what killed processes left; what replaces them is durable.

    Raises
    ------
    OSError : a file cannot be deleted.
    """
    kept_names = {path.name for path in keep}
    for path in _checkpoint_files(folder):
        if path.name not in kept_names:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
    sweep_temporaries(folder)


def _checkpoint_files(folder: Path) -> list[Path]:
    """Return the folder's checkpoint files in the order of their steps."""
    if not folder.is_dir():
        return []
    files = [path for path in folder.iterdir() if _FILE_NAME.fullmatch(path.name) and path.is_file()]
    return sorted(files, key=_step_in)


def _step_in(path: Path) -> int:
    match = _FILE_NAME.fullmatch(path.name)
    if match is None:
        raise ValueError(f"{path.name} is no checkpoint's name")
    return int(match[1])
