"""Files of tensors that another program wrote, such as PyTorch: the safetensors format."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray

from partrain.errors import RunError
from partrain.store import checkpoint
from partrain.system.memory_limits import read_whole

# JSON takes up to twenty times its size in memory. A large network's header has a few hundred KiB.
MAX_HEADER_BYTES = 32 * 1024**2

_FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True, eq=False)
class TensorFile:
    """The content of a file.

    Attributes
    ----------
    arrays : the floating-point tensors by name. NumPy has no bfloat16: such tensors are float32, which holds all of
        their values.
    dtypes : the types of all tensors by name, such as "bfloat16"; other than floating-point ones as the format names
        them, such as "I64".
    sha256 : the SHA-256 of the file.
    is_checkpoint : whether it is a checkpoint of partrain, which also has the optimizer's state.
    """

    arrays: dict[str, NDArray[Any]]
    dtypes: dict[str, str]
    sha256: str
    is_checkpoint: bool


def read_tensors(path: Path) -> TensorFile:
    """Read a file. The digest of a checkpoint is verified.

    Raises
    ------
    RunError
        The file cannot be read, or is no safetensors file.
    ResourceError
        It does not fit into memory.
    """
    try:
        # The content, safetensors' copy of it, and the arrays.
        content = read_whole(path, 3, "Free some memory.")
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}.") from error
    if int.from_bytes(content[:8], "little") > MAX_HEADER_BYTES:
        raise _no_tensors(path, "its header would be too large")
    is_checkpoint = checkpoint.has_digest(content)
    if is_checkpoint:
        checkpoint.decode(content, str(path))
    try:
        entries = safetensors.deserialize(content)  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as error:
        raise _no_tensors(path, str(error)) from error
    dtypes = {name: _FLOATS.get(entry["dtype"], str(entry["dtype"])) for name, entry in entries}
    arrays = {name: _array(entry) for name, entry in entries if entry["dtype"] in _FLOATS}
    return TensorFile(arrays, dtypes, hashlib.sha256(content).hexdigest(), is_checkpoint)


def _array(entry: dict[str, Any]) -> NDArray[Any]:
    """Return the array of an entry of safetensors' list; the format stores little-endian numbers in C order."""
    if entry["dtype"] == "BF16":  # the first half of a float32
        numbers = (np.frombuffer(entry["data"], "<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        numbers = np.frombuffer(entry["data"], np.dtype(_FLOATS[entry["dtype"]]).newbyteorder("<"))
    return numbers.reshape(entry["shape"])


def _no_tensors(path: Path, reason: str) -> RunError:
    return RunError(
        f"{path}: is not a safetensors file, or is damaged ({reason}). In PyTorch, write one with "
        "safetensors.torch.save_file(model.state_dict(), FILE)."
    )
