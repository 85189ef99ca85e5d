"""The layers of a network as ONNX operators."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from partrain.network.layers import (
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    Gelu,
    GlobalAvgPool2d,
    GroupNorm,
    Layer,
    LayerNorm,
    LeakyRelu,
    MaxPool2d,
    Relu,
    Residual,
    Sigmoid,
    Silu,
    Tanh,
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
        if isinstance(layer, GroupNorm | LayerNorm):
            return self._add_normalisation(layer, x)
        if isinstance(layer, Gelu | Silu):
            return self.node("Mul", [x, self._gate(layer, x)], layer.name)
        operator, attributes = _operator(layer)
        inputs = [x, *(self.constant(p.name, self._parameters[p.name]) for p in layer.parameters)]
        return self.node(operator, inputs, layer.name, **attributes)

    def _add_normalisation(self, layer: GroupNorm | LayerNorm, x: str) -> str:
        """Add a group or layer normalisation: its own operators need a later version of the format."""
        name, shape = layer.name, layer.input_shape
        groups = layer.groups if isinstance(layer, GroupNorm) else 1
        rows = self.node("Reshape", [x, self._sizes(f"{name}.groups", (0, groups, -1))], f"{name}.rows")
        ones, zeros = self.constant(f"{name}.ones", np.ones(groups)), self.constant(f"{name}.zeros", np.zeros(groups))
        z = self.node("InstanceNormalization", [rows, ones, zeros], f"{name}.normalised", epsilon=layer.eps)
        z = self.node("Reshape", [z, self._sizes(f"{name}.shape", (-1, *shape))], f"{name}.reshaped")
        weight, bias = (
            self.constant(p.name, self._parameters[p.name].reshape(p.shape + (1,) * (len(shape) - len(p.shape))))
            for p in layer.parameters
        )
        return self.node("Add", [self.node("Mul", [z, weight], f"{name}.scaled"), bias], name)

    def _sizes(self, name: str, sizes: tuple[int, ...]) -> str:
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.array(sizes, np.int64), name))
        return name

    def _gate(self, layer: Gelu | Silu, x: str) -> str:
        """Add what x is multiplied by."""
        name = layer.name
        if isinstance(layer, Silu):
            return self.node("Sigmoid", [x], f"{name}.gate")
        one, half = self.constant(f"{name}.one", np.array(1.0)), self.constant(f"{name}.half", np.array(0.5))
        if layer.approximate == "tanh":
            cube = self.constant(f"{name}.cube", np.array(0.044715))
            slope = self.constant(f"{name}.slope", np.array(math.sqrt(2 / math.pi)))
            square = self.node("Mul", [x, x], f"{name}.square")
            factor = self.node("Add", [self.node("Mul", [square, cube], f"{name}.cubed"), one], f"{name}.factor")
            u = self.node("Mul", [self.node("Mul", [x, slope], f"{name}.linear"), factor], f"{name}.u")
            curve = self.node("Tanh", [u], f"{name}.tanh")
        else:
            root_half = self.constant(f"{name}.root_half", np.array(math.sqrt(0.5)))
            curve = self.node("Erf", [self.node("Mul", [x, root_half], f"{name}.u")], f"{name}.erf")
        return self.node("Mul", [self.node("Add", [curve, one], f"{name}.sum"), half], f"{name}.gate")


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
        case BatchNorm(eps=eps):
            return "BatchNormalization", {"epsilon": eps}
        case Relu():
            return "Relu", {}
        case LeakyRelu(slope=slope):
            return "LeakyRelu", {"alpha": slope}
        case Tanh():
            return "Tanh", {}
        case Sigmoid():
            return "Sigmoid", {}
        case Flatten():
            return "Flatten", {"axis": 1}
        case Dense():
            return "Gemm", {"transB": 1}
    raise AssertionError(layer)
