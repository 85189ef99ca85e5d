"""The network as an ONNX model: from raw pixels to logits and probabilities.

Shapes: N examples; C, H, W channels, rows, columns; E outputs.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

import partrain
from partrain.analysis.export.onnx_layers import OnnxLayers
from partrain.analysis.trained_run import TrainedRun
from partrain.errors import ConfigError, MissingPackage

if TYPE_CHECKING:  # a package of the extra `export`
    import onnx

# Versions from 2021, which every runtime supports.
_OPSET, _IR_VERSION = 15, 8
# A model is one Protocol Buffers message, which is limited to 2 GiB.
MAX_BYTES = 2**31 - 2**20


def encode_onnx(trained: TrainedRun) -> bytes:
    """Return the network as an ONNX model.

    The input `pixels` (N,C,H,W) has a variable N and the dtype of the data set's images, usually uint8; images that
    were already scaled to floats are then rejected rather than misinterpreted. Normalisation is part of the graph. The
    outputs are `logits` and `probabilities` (N,E). The model computes in float32, whatever dtype was trained.

    Raises
    ------
    MissingPackage
        The package onnx is not installed.
    ConfigError
        The network is too large for the format.
    """
    try:
        import onnx
        from onnx import helper
    except ImportError as error:
        raise MissingPackage("onnx", "export", "export to .onnx") from error
    num_bytes = trained.network.parameters.size * 4
    if num_bytes > MAX_BYTES:
        raise ConfigError(
            f"--to: {num_bytes:,} bytes of parameters exceed the limit of an .onnx file; export to .safetensors"
        )
    graph = _graph(trained)
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="partrain",
        producer_version=partrain.__version__,
    )
    helper.set_model_props(
        model,
        {
            "class_names": json.dumps(trained.class_names, ensure_ascii=False),
            "mean": json.dumps(trained.normalisation.mean),
            "std": json.dumps(trained.normalisation.std),
        },
    )
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _graph(trained: TrainedRun) -> onnx.GraphProto:
    """Return the graph: normalisation, layers, softmax."""
    import onnx
    from onnx import helper

    layers = OnnxLayers(trained.network.parameters.views(trained.parameters))
    per_channel = (1, -1, 1, 1)
    mean = layers.constant("mean", np.array(trained.normalisation.mean).reshape(per_channel))
    std = layers.constant("std", np.array(trained.normalisation.std).reshape(per_channel))
    pixels_as_float = layers.node("Cast", ["pixels"], "pixels_as_float", to=onnx.TensorProto.FLOAT)
    centred = layers.node("Sub", [pixels_as_float, mean], "centred")
    normalised = layers.node("Div", [centred, std], "normalised")
    logits = layers.node("Identity", [layers.add(trained.network.layers, normalised)], "logits")
    layers.node("Softmax", [logits], "probabilities", axis=1)
    outputs = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", trained.network.num_outputs])
        for name in ("logits", "probabilities")
    ]
    pixels = helper.make_tensor_value_info(
        "pixels",
        helper.np_dtype_to_tensor_dtype(np.dtype(trained.image_dtype)),
        ["N", *trained.network.input_shape],
    )
    return helper.make_graph(layers.nodes, trained.config.name, [pixels], outputs, layers.constants)
