from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import yaml
from numpy.typing import NDArray
from scipy import special

from partrain.analysis.export import onnx_model
from partrain.analysis.export.onnx_model import encode_onnx
from partrain.analysis.trained_run import TrainedRun, load_trained_run
from partrain.errors import ConfigError, MissingPackage
from partrain.network.layers import AvgPool2d, Conv2d, Dense, Flatten, GlobalAvgPool2d, Layer, MaxPool2d, Relu, Residual
from tests.kernels import oracles
from tests.program import ROOT
from tests.saved_runs import CLASS_NAMES, NETWORK, SHAPE, write_saved_run

# Groups, dilation, no bias, padded pooling, means; a dense layer directly behind the last one.
GROUPED: list[Any] = [
    {"conv": {"filters": 6, "kernel": [3, 2], "groups": 3, "dilation": [1, 2], "padding": [2, 1], "bias": False}},
    {"max_pool": {"window": 3, "stride": 2, "padding": 1}},
    {"conv": {"filters": 12, "kernel": 3, "groups": 6, "padding": 1}},
    {"avg_pool": {"window": 2, "stride": 1, "padding": [1, 0]}},
    "relu",
    "global_avg_pool",
    {"dense": {"units": 3}},
]
ARTICLE: list[Any] = yaml.safe_load((ROOT / "configs/mnist.yaml").read_text())["network"]

POINTWISE = {"conv": {"filters": 4, "kernel": 1}}
BRANCHES: list[Any] = [
    {"residual": {"body": [{"conv": {"filters": 2, "kernel": 3, "padding": 1}}, "relu"]}},
    {"residual": {"body": [POINTWISE], "shortcut": [POINTWISE]}},
    "relu",
    "flatten",
    {"residual": {"body": ["relu", {"residual": {"body": [{"dense": {"units": 144}}]}}]}},
    {"dense": {"units": 3}},
]


def forward(saved: TrainedRun, images_NCHW: NDArray[Any]) -> NDArray[Any]:
    """Return the logits, from the definitions, in float64."""
    mean, std = (np.array(values)[:, None, None] for values in (saved.normalisation.mean, saved.normalisation.std))
    parameters = saved.network.parameters.views(saved.parameters)
    x = (images_NCHW.astype(np.float64) - mean) / std
    return forward_layers(saved.network.layers, parameters, x)


def forward_layers(layers: Sequence[Layer], parameters: Mapping[str, NDArray[Any]], x: NDArray[Any]) -> NDArray[Any]:
    for layer in layers:
        values = [parameters[p.name].astype(np.float64) for p in layer.parameters]
        match layer:
            case Conv2d():
                w, b = (*values, np.zeros(layer.output_shape[0]))[:2]
                w = oracles.spread_filters(w, layer.dilation, layer.groups)
                x = oracles.conv2d_forward(x, w, b, layer.stride, layer.padding)
            case MaxPool2d():
                x, _ = oracles.max_pool_forward(x, layer.window, layer.stride, layer.padding)
            case AvgPool2d():
                x = oracles.avg_pool_forward(x, layer.window, layer.stride, layer.padding)
            case GlobalAvgPool2d():
                x = x.mean((2, 3), keepdims=True)
            case Relu():
                x = np.maximum(x, 0)
            case Flatten():
                x = x.reshape(len(x), -1)
            case Dense():
                x = oracles.dense_forward(x, *values)
            case Residual():
                x = forward_layers(layer.body, parameters, x) + forward_layers(layer.shortcut, parameters, x)
    return x


def pixels(num_images: int, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    return np.random.default_rng(num_images).integers(0, 256, (num_images, *shape)).astype(dtype)


@pytest.mark.parametrize(
    ("network", "shape", "image_dtype", "dtype"),
    [
        (NETWORK, SHAPE, "uint8", "float32"),
        (NETWORK, SHAPE, "float32", "float64"),
        (ARTICLE, (1, 28, 28), "uint8", "float32"),
        (GROUPED, (3, 11, 10), "uint8", "float32"),
        (["flatten", {"dropout": {"rate": 0.5}}, {"dense": {"units": 3}}], (1, 2, 3), "uint8", "float32"),
        (["flatten", {"dense": {"units": 3}}], (1, 2, 3), "uint8", "float32"),
        (BRANCHES, (2, 6, 6), "uint8", "float32"),
    ],
    ids=["strides-paddings", "float64-parameters", "article", "groups-and-means", "dropout", "one-layer", "branches"],
)
def test_onnxruntime_gives_the_logits_and_probabilities_for_raw_pixels(
    tmp_path: Path, network: Sequence[Any], shape: tuple[int, int, int], image_dtype: str, dtype: str
) -> None:
    write_saved_run(tmp_path / "run", network, shape=shape, image_dtype=image_dtype, dtype=dtype)
    saved = load_trained_run(tmp_path / "run", "last", pytest.fail)
    data = encode_onnx(saved)
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    session = onnxruntime.InferenceSession(data)
    (given,) = session.get_inputs()
    assert (given.name, given.shape) == ("pixels", ["N", *shape])
    assert given.type == ("tensor(uint8)" if image_dtype == "uint8" else "tensor(float)")
    assert [output.name for output in session.get_outputs()] == ["logits", "probabilities"]
    for num_images in (1, 5):
        images = pixels(num_images, shape, image_dtype)
        logits, probabilities = session.run(None, {"pixels": images})
        expected = forward(saved, images)
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
        np.testing.assert_allclose(probabilities, special.softmax(logits, axis=1), rtol=1e-4, atol=1e-7)


def test_model_contains_classes_and_normalisation_and_has_reproducible_bytes(tmp_path: Path) -> None:
    write_saved_run(tmp_path / "run")
    saved = load_trained_run(tmp_path / "run", "last", pytest.fail)
    data = encode_onnx(saved)
    assert encode_onnx(saved) == data
    model = onnx.load_from_string(data)
    said = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert tuple(said["class_names"]) == CLASS_NAMES
    assert said["mean"] == list(saved.normalisation.mean)
    assert said["std"] == list(saved.normalisation.std)
    assert model.producer_name == "partrain"


def test_missing_package_is_one_message_that_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_saved_run(tmp_path / "run")
    saved = load_trained_run(tmp_path / "run", "last", pytest.fail)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingPackage, match=r"^export to .onnx needs the package onnx: .*partrain\[export\]'$"):
        encode_onnx(saved)


def test_network_that_is_too_large_for_the_format_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_saved_run(tmp_path / "run")
    saved = load_trained_run(tmp_path / "run", "last", pytest.fail)
    monkeypatch.setattr(onnx_model, "MAX_BYTES", 1000)
    with pytest.raises(ConfigError, match=r"exceed the limit of an \.onnx file; export to \.safetensors"):
        encode_onnx(saved)
