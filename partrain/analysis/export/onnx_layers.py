"""The layers of a network as ONNX operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from partrain.network.layers import (
    AvgPool2d,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    Layer,
    MaxPool2d,
    Relu,
    Residual,
)

if TYPE_CHECKING:  # a package of the extra `export`
    import onnx


class OnnxLayers:
    """Collects the nodes and constants of a graph.

    Parameters
    ----------
    parameters : the network's parameters, by name.

    Attributes
    ----------
    nodes : in order.
    constants : the parameters, and what else the nodes read.
    """

    def __init__(self, parameters: Mapping[str, NDArray[Any]]) -> None:
        self._parameters = parameters
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, array: NDArray[Any]) -> str:
        """Add a float32 constant; return its name."""
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def node(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node with one output; return the name of that."""
        from onnx import helper

        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def add(self, layers: Sequence[Layer], x: str) -> str:
        """Add layers one after the other to the value `x`; return the name of their output."""
        for layer in layers:
            x = self._add_layer(layer, x)
        return x

    def _add_layer(self, layer: Layer, x: str) -> str:
        if isinstance(layer, Dropout):  # only active in training
            return x
        if isinstance(layer, Residual):
            return self.node("Add", [self.add(layer.body, x), self.add(layer.shortcut, x)], layer.name)
        operator, attributes = _operator(layer)
        inputs = [x, *(self.constant(p.name, self._parameters[p.name]) for p in layer.parameters)]
        return self.node(operator, inputs, layer.name, **attributes)


def _operator(layer: Layer) -> tuple[str, dict[str, Any]]:
    """Return the ONNX operator of a layer, and its attributes."""
    match layer:
        case Conv2d(stride=stride, padding=padding):
            more = {"dilations": layer.dilation, "group": layer.groups}
            return "Conv", {"strides": stride, "pads": padding * 2, **more}
        case MaxPool2d(window=window, stride=stride, padding=padding):
            return "MaxPool", {"kernel_shape": window, "strides": stride, "pads": padding * 2}
        case AvgPool2d(window=window, stride=stride, padding=padding):
            more = {"pads": padding * 2, "count_include_pad": 1}
            return "AveragePool", {"kernel_shape": window, "strides": stride, **more}
        case GlobalAvgPool2d():
            return "GlobalAveragePool", {}
        case Relu():
            return "Relu", {}
        case Flatten():
            return "Flatten", {"axis": 1}
        case Dense():
            return "Gemm", {"transB": 1}
    raise AssertionError(layer)
