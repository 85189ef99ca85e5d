"""Parameters as .safetensors and .npz: the names and shapes of PyTorch, with what is needed to use them."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import safetensors.numpy

from partrain.analysis.trained_run import TrainedRun


def encode_safetensors(trained: TrainedRun) -> bytes:
    """Return the parameters as a safetensors file; the same network gives the same bytes.

    The metadata holds `mean`, `std` and `class_names` as JSON lists, since the format knows texts alone.
    """
    metadata = {
        "class_names": json.dumps(trained.class_names, ensure_ascii=False),
        "format": "pt",  # what loaders of PyTorch models ask for: shapes are PyTorch's
        "mean": json.dumps(trained.normalisation.mean),
        "std": json.dumps(trained.normalisation.std),
    }
    parameters = trained.network.parameters.views(trained.parameters)
    data = safetensors.numpy.save(parameters, metadata=metadata)
    # The package writes the metadata in another order each time. The header is JSON after its length in 8 bytes;
    # the places of tensors in it are counted from its end, so that it may change its length.
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:start]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[start:]


def encode_npz(trained: TrainedRun) -> bytes:
    """Return the parameters as NumPy's .npz: an array for each, and `mean`, `std` (C,) and `class_names`."""
    arrays: dict[str, Any] = {
        **trained.network.parameters.views(trained.parameters),
        "mean": np.array(trained.normalisation.mean),
        "std": np.array(trained.normalisation.std),
        "class_names": np.array(trained.class_names),
    }
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()
