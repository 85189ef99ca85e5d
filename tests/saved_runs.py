"""Directories of trained runs, written without training: with a checkpoint, for tests that read parameters."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.config.reader import parse_config
from partrain.network.network import Network
from partrain.store.checkpoint import Checkpoint
from partrain.store.run_directory import RunDirectory

# Every kind of layer; windows that overlap; strides and paddings that differ between rows and columns.
NETWORK: tuple[Any, ...] = (
    {"conv": {"filters": 3, "kernel": [3, 2], "stride": [2, 1], "padding": [1, 2]}},
    "relu",
    {"max_pool": {"window": 3, "stride": 2}},
    {"conv": {"filters": 4, "kernel": 2, "padding": 1}},
    {"max_pool": {"window": [2, 3], "stride": [1, 2]}},
    "relu",
    "flatten",
    {"dense": {"units": 7}},
    "relu",
    {"dense": {"units": 3}},
)
SHAPE = (2, 13, 11)
CLASS_NAMES = ("cat", "Größe", 'a "dog"')
NORMALISATION = {"mean": [30.5, 100.0], "std": [70.0, 20.25]}
STARTED = "2026-01-02T03:04:05.000+00:00"
ROWS: tuple[dict[str, Any], ...] = (
    {"step": 1, "epoch": 0.5, "examples": 20, "time_s": 1.5, "train/loss": 2.25, "lr": 1e-3},
    {"step": 2, "epoch": 1.0, "examples": 40, "time_s": 2.5, "train/loss": float("nan"), "lr": 1e-3},
    {"step": 2, "epoch": 1.0, "examples": 40, "time_s": 2.75, "validation/loss": 1.5, "validation/accuracy": 0.5},
)


def write_saved_run(
    path: Path,
    network: Sequence[Any] = NETWORK,
    *,
    shape: tuple[int, int, int] = SHAPE,
    image_dtype: str = "uint8",
    dtype: str = "float32",
    data: Mapping[str, Any] | None = None,
    rows: Sequence[dict[str, Any]] = ROWS,
    step: int = 2,
    with_images: bool = True,
) -> dict[str, NDArray[Any]]:
    """Write a run whose parameters are random; return them."""
    channels = shape[0]
    normalisation = {name: (values * channels)[:channels] for name, values in NORMALISATION.items()}
    mapping = {
        "name": path.name,
        "data": dict(data or {"name": "arrays", "path": "images.npz"}),
        "network": list(network),
        "training": {"dtype": dtype, "kernels": "fast" if dtype == "float32" else "loops"},
    }
    config = parse_config(mapping, source="a test")
    layout = Network(config.network, shape, len(CLASS_NAMES)).parameters
    rng = np.random.Generator(np.random.Philox(key=5))
    parameters = {p.name: (rng.standard_normal(p.shape) * 0.3).astype(dtype) for p in layout}
    for name, variances in parameters.items():
        if name.endswith(".running_var"):
            np.abs(variances, out=variances)
    moments = {f"adam.{kind}_moment.{name}": 0 * p for kind in ("first", "second") for name, p in parameters.items()}
    metadata: dict[str, Any] = {
        "step": step,
        "normalisation": normalisation,
        "class_names": CLASS_NAMES,
        "config_digest": config.identity_digest(),
    }
    if with_images:
        metadata |= {"image_shape": shape, "image_dtype": image_dtype}
    run = RunDirectory.create_at(path)
    run.config_path.write_text(config.to_yaml())
    run.write_run_json({"status": "completed", "started": STARTED})
    run.checkpoints.save(Checkpoint(parameters | moments, metadata))
    names = {"nan": "NaN"}
    run.metrics_path.write_text(
        "".join(json.dumps({k: names.get(str(v), v) for k, v in row.items()}, allow_nan=False) + "\n" for row in rows)
    )
    return parameters
