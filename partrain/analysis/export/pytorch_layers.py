"""The layers of a network in PyTorch's words: a module that holds parameters, or a function, and statements.

The line length is that of Black and Ruff, 88: users format their code with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

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
    leaf_layers,
)

# The name of a function, and its arguments.
Call = tuple[str, list[str]]

LINE_WIDTH = 88
_BODY_INDENT = 8


def constructors(layers: Iterable[Layer]) -> Iterator[str]:
    """Yield the statement of `__init__` for each layer that is a module: those with parameters, and dropout."""
    for layer in leaf_layers(layers):
        if type(layer) in _MODULES:
            yield _assignment(f"self.{layer.name}", *_MODULES[type(layer)](layer))


def statements(layers: Iterable[Layer]) -> list[str]:
    """Return the statements of `forward`, from the variable x on.

    Activations and normalisations share the line of their input.
    """
    lines = _statements(layers, "x", "x", depth=0)
    return [*lines[:-1], f"return {lines[-1].removeprefix('x = ')}"]


def _statements(layers: Iterable[Layer], source: str, target: str, *, depth: int) -> list[str]:
    """Return the statements that compute layers.

    Parameters
    ----------
    layers : the layers.
    source, target : the variables that have the input, and get the output.
    depth : the number of residual layers around them. Blank lines separate those that have none around them.
    """
    lines: list[str] = []
    is_after_residual = False
    for layer in layers:
        begun = target if lines else source
        if lines and type(layer) in _JOINED:
            joined = f"{target} = {_call(layer, lines[-1].removeprefix(f'{target} = '))}"
            if _BODY_INDENT + len(joined) <= LINE_WIDTH:
                lines[-1] = joined
                continue
        if lines and depth == 0 and (isinstance(layer, Residual) or is_after_residual):
            lines.append("")
        is_after_residual = isinstance(layer, Residual)
        if isinstance(layer, Residual):
            lines += _residual(layer, begun, target, depth)
        else:
            lines.append(f"{target} = {_call(layer, begun)}")
    return lines


def _residual(layer: Residual, source: str, target: str, depth: int) -> list[str]:
    shortcut = f"shortcut{depth + 1 if depth else ''}"
    return [
        *(_statements(layer.shortcut, source, shortcut, depth=depth + 1) or [f"{shortcut} = {source}"]),
        *_statements(layer.body, source, target, depth=depth + 1),
        f"{target} = {target} + {shortcut}",
    ]


def _assignment(target: str, function: str, arguments: Sequence[str]) -> str:
    """Return the assignment of a call, over several lines if it is too long for one."""
    joined = ", ".join(arguments)
    if _BODY_INDENT + len(line := f"{target} = {function}({joined})") <= LINE_WIDTH:
        return line
    if _BODY_INDENT + len(inner := f"    {joined}") > LINE_WIDTH:
        inner = "\n".join(f"    {argument}," for argument in arguments)
    return f"{target} = {function}(\n{inner}\n)"


def _call(layer: Layer, x: str) -> str:
    """Return the call of a layer with the expression x."""
    if type(layer) in _MODULES:
        return f"self.{layer.name}({x})"
    function, arguments = _FUNCTIONS[type(layer)](layer)
    return f"{function}({', '.join([x, *arguments])})"


def _written(value: Any) -> str:
    """Return a value as code: the two numbers of rows and columns as one number if they are equal."""
    if isinstance(value, tuple) and len(value) == 2 and value[0] == value[1]:
        return repr(value[0])
    return repr(value)


def _named(**values: tuple[Any, Any]) -> list[str]:
    """Return arguments by name, from values and their defaults; defaults are left out."""
    return [f"{name}={_written(value)}" for name, (value, default) in values.items() if value != default]


def _conv(layer: Any) -> Call:
    F, _, R, S = layer.parameters[0].shape
    others = _named(
        stride=(layer.stride, (1, 1)),
        padding=(layer.padding, (0, 0)),
        dilation=(layer.dilation, (1, 1)),
        groups=(layer.groups, 1),
        bias=(layer.has_bias, True),
    )
    return "nn.Conv2d", [str(layer.input_shape[0]), str(F), f"kernel_size={_written((R, S))}", *others]


def _dense(layer: Any) -> Call:
    E, D = layer.parameters[0].shape
    return "nn.Linear", [str(D), str(E)]


def _group_norm(layer: Any) -> Call:
    return "nn.GroupNorm", [str(layer.groups), str(layer.input_shape[0]), *_named(eps=(layer.eps, 1e-5))]


def _layer_norm(layer: Any) -> Call:
    shape = layer.input_shape
    return "nn.LayerNorm", [repr(shape if len(shape) > 1 else shape[0]), *_named(eps=(layer.eps, 1e-5))]


def _batch_norm(layer: Any) -> Call:
    momentum = next(p.momentum for p in layer.parameters if p.role == "average")
    others = _named(eps=(layer.eps, 1e-5), momentum=(momentum, 0.1))
    return f"nn.BatchNorm{'2d' if len(layer.input_shape) > 1 else '1d'}", [str(layer.input_shape[0]), *others]


def _max_pool(layer: Any) -> Call:
    return "F.max_pool2d", _window(layer)


def _window(layer: Any) -> list[str]:
    others = _named(stride=(layer.stride, layer.window), padding=(layer.padding, (0, 0)))
    return [_written(layer.window), *others]


# An entry for each kind of layer: modules, which are attributes, and functions with the arguments after x.
_MODULES: dict[type[Layer], Callable[[Any], Call]] = {
    Conv2d: _conv,
    Dense: _dense,
    Dropout: lambda layer: ("nn.Dropout", [_written(layer.rate)]),
    GroupNorm: _group_norm,
    LayerNorm: _layer_norm,
    BatchNorm: _batch_norm,
}
_FUNCTIONS: dict[type[Layer], Callable[[Any], Call]] = {
    Relu: lambda layer: ("F.relu", []),
    LeakyRelu: lambda layer: ("F.leaky_relu", _named(negative_slope=(layer.slope, 0.01))),
    Gelu: lambda layer: ("F.gelu", [] if layer.approximate == "none" else [f'approximate="{layer.approximate}"']),
    Silu: lambda layer: ("F.silu", []),
    Tanh: lambda layer: ("torch.tanh", []),
    Sigmoid: lambda layer: ("torch.sigmoid", []),
    MaxPool2d: _max_pool,
    AvgPool2d: lambda layer: ("F.avg_pool2d", _window(layer)),
    GlobalAvgPool2d: lambda layer: ("F.adaptive_avg_pool2d", ["1"]),
    Flatten: lambda layer: ("torch.flatten", ["1"]),
}
# The kinds of layers besides residual ones.
KINDS = {*_MODULES, *_FUNCTIONS}
# Layers whose call is written around that of the layer before.
_JOINED = {Relu, LeakyRelu, Gelu, Silu, Tanh, Sigmoid, GroupNorm, LayerNorm, BatchNorm}
