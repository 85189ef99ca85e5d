"""What rank 0 of an MPI job tells the others: the configuration, and what to begin with.

They read no file of the run.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.config.schema.config import Config

_HEADER_BYTES = struct.Struct("<q")


@dataclass(frozen=True, eq=False)
class Assignment:
    """A training to take part in.

    Attributes
    ----------
    config : as rank 0 read it.
    tensors : of the checkpoint to go on from, or the parameters to begin with; empty: they are drawn.
    metadata : the checkpoint's, or None if there is none.
    """

    config: Config
    tensors: dict[str, NDArray[Any]] = field(default_factory=dict)
    metadata: dict[str, Any] | None = None

    @staticmethod
    def encode(job: Assignment | None) -> bytes:
        """Return a job as bytes; None: there is nothing to do."""
        if job is None:
            return b""
        arrays = {name: np.ascontiguousarray(tensor) for name, tensor in job.tensors.items()}
        header = {
            "config": job.config.to_mapping(),
            "tensors": [[name, tensor.dtype.str, tensor.shape] for name, tensor in job.tensors.items()],
            "metadata": job.metadata,
        }
        text = json.dumps(header).encode()
        return b"".join([_HEADER_BYTES.pack(len(text)), text, *(tensor.tobytes() for tensor in arrays.values())])

    @staticmethod
    def decode(content: bytes) -> Assignment | None:
        """Return the job that `encode` wrote."""
        if not content:
            return None
        (length,) = _HEADER_BYTES.unpack_from(content)
        offset = _HEADER_BYTES.size + length
        header = json.loads(content[_HEADER_BYTES.size : offset])
        tensors = {}
        for name, dtype, shape in header["tensors"]:
            count = int(np.prod(shape, dtype=np.int64))
            tensors[name] = np.frombuffer(content, dtype, count, offset).reshape(shape)
            offset += tensors[name].nbytes
        return Assignment(Config.model_validate(header["config"]), tensors, header["metadata"])
