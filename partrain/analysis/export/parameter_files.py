"""Parameters as .safetensors and .npz files, with PyTorch's names and shapes, normalisation and class names."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import safetensors.numpy

from partrain.analysis.trained_run import TrainedRun


def encode_safetensors(trained: TrainedRun) -> bytes:
    """Return the parameters as a safetensors file; equal parameters give equal bytes.

    The metadata contains `mean`, `std` and `class_names` as JSON, because the format only allows strings.
    """
    metadata = {
        "class_names": json.dumps(trained.class_names, ensure_ascii=False),
        "format": "pt",  # loaders of PyTorch models expect this value
        "mean": json.dumps(trained.normalisation.mean),
        "std": json.dumps(trained.normalisation.std),
    }
    parameters = trained.network.parameters.views(trained.parameters)
    data = safetensors.numpy.save(parameters, metadata=metadata)
    # The package writes the metadata in varying order, so the header is rewritten with sorted keys. The header is JSON,
    # preceded by its length in 8 bytes. Offsets of tensors count from its end, so its length may change.
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:start]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[start:]


def encode_npz(trained: TrainedRun) -> bytes:
    """Return the parameters as an .npz file: one array per parameter, and `mean`, `std` (C,) and `class_names`."""
    arrays: dict[str, Any] = {
        **trained.network.parameters.views(trained.parameters),
        "mean": np.array(trained.normalisation.mean),
        "std": np.array(trained.normalisation.std),
        "class_names": np.array(trained.class_names),
    }
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()
