"""Normalisation, activations and residual layers as ONNX operators, against the loops in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from partrain.analysis.export.onnx_model import encode_onnx
from partrain.analysis.trained_run import load_trained_run
from partrain.kernels.compiler.loading import load
from partrain.network.loops_execution import LoopsExecution
from tests.saved_runs import write_saved_run

CONV = {"conv": {"filters": 6, "kernel": 3, "padding": 1}}
NETWORK: list[Any] = [
    CONV,
    {"batch_norm": {"eps": 1e-3}},
    {"leaky_relu": {"slope": 0.2}},
    {"residual": {"body": [{"group_norm": {"groups": 3}}, "relu", CONV, "batch_norm", "gelu", CONV]}},
    "layer_norm",
    {"gelu": {"approximate": "tanh"}},
    "flatten",
    {"dense": {"units": 8}},
    {"group_norm": {"groups": 2}},
    "silu",
    {"dense": {"units": 8}},
    "layer_norm",
    "tanh",
    {"residual": {"body": ["batch_norm", "sigmoid", {"dense": {"units": 8}}]}},
    {"dense": {"units": 3}},
]


def test_onnxruntime_gives_the_logits_of_an_evaluation(tmp_path: Path) -> None:
    write_saved_run(tmp_path / "run", NETWORK, shape=(2, 7, 5), image_dtype="uint8", dtype="float32")
    saved = load_trained_run(tmp_path / "run", "last", pytest.fail)
    for name, view in saved.network.parameters.views(saved.parameters).items():
        if name.endswith("running_var"):
            view[:] = np.linspace(0.5, 2, view.size)
    images = np.random.default_rng(0).integers(0, 256, (5, 2, 7, 5)).astype(np.uint8)
    (logits,) = onnxruntime.InferenceSession(encode_onnx(saved)).run(["logits"], {"pixels": images})
    load(LoopsExecution.kernels(saved.network.layers), "float64")
    parameters = saved.parameters.astype(np.float64)
    execution = LoopsExecution(saved.network, parameters, saved.normalisation, 5, "float64")
    np.testing.assert_allclose(logits, execution.forward(images, np.arange(5)), rtol=0, atol=1e-4)
