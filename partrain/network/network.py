"""A network: its layers, its parameters, and the form in which workers exchange their gradients."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from partrain.errors import ConfigError
from partrain.network.freezing import with_frozen
from partrain.network.layers import (
    Dense,
    Layer,
    Residual,
    Shape,
    every_layer,
    is_trained,
    leaf_layers,
)
from partrain.network.parameters import ParameterLayout
from partrain.system.terminal_text import table

if TYPE_CHECKING:  # workers need no schema
    from partrain.config.schema.values import Section

# The least number of examples that a worker computes per call: they share the loading of the weights and the overhead
# of Python. With 8, dense networks take a tenth longer; with 32, few networks are faster.
EXAMPLES_PER_CALL = 16
# With more numbers of an example than this, in all layers, 16 examples go through memory in each layer: a network of
# depthwise separable convolutions on 3x64x64 takes a sixth longer with them than with one tile of 4.
MANY_ACTIVATIONS = 2**20


def examples_per_call(tile: int, network: Network) -> int:
    """Return the number of examples that the fast execution computes per call, a whole number of tiles."""
    return tile if network.num_activations > MANY_ACTIVATIONS else tile * -(-EXAMPLES_PER_CALL // tile)


class Network:
    """The shapes of a network: plain data that can be sent to a worker. Needs no Numba.

    Attributes
    ----------
    layers : the layers, in order. A residual layer contains others.
    leaf_layers : the layers that compute, in the order in which they are numbered: with those of a residual layer, the
        body before the shortcut, in its place.
    trained_layers : the leaf layers that have parameters that are not frozen.
    dense_layers : the dense layers, whose gradients are exchanged as factors (network.execution.Factors).
    tile_sums : the parameters whose gradients are exchanged as one sum per tile: all but those of dense layers, in the
        order of the layers.
    parameters : all parameters: `tile_sums`, then those of the dense layers. The reduction writes the tile sums to the
        front of the gradient.
    """

    def __init__(
        self, descriptions: Sequence[Section], input_shape: Shape, num_classes: int, freeze: Collection[str] = ()
    ) -> None:
        """Build the layers, and check that they fit.

        Parameters
        ----------
        freeze : the names of the layers whose parameters stay as they are.

        Raises
        ------
        ConfigError
            A layer does not fit its input, or the last one does not fit the number of classes; or a
            name is that of no layer that can be frozen. The message lists all problems.
        """
        from partrain.config.network_checks import network_problems  # needs the schema
        from partrain.network.layer_building import build_layers

        if problems := network_problems(descriptions, input_shape, num_classes, freeze):
            raise ConfigError("\n".join(problem.message for problem in problems))
        self.layers: tuple[Layer, ...] = with_frozen(build_layers(descriptions, input_shape), freeze)
        self.input_shape = input_shape
        self.leaf_layers = tuple(leaf_layers(self.layers))
        self.trained_layers = tuple(layer for layer in self.leaf_layers if is_trained(layer))
        self.dense_layers = tuple(layer for layer in self.leaf_layers if isinstance(layer, Dense))
        self.tile_sums = ParameterLayout(
            p for layer in self.leaf_layers if not isinstance(layer, Dense) for p in layer.parameters
        )
        of_dense_layers = (p for layer in self.dense_layers for p in layer.parameters)
        self.parameters = ParameterLayout((*self.tile_sums, *of_dense_layers))
        self.num_outputs = math.prod(self.layers[-1].output_shape)

    @property
    def num_activations(self) -> int:
        """The number of values of one example in the inputs and outputs of all layers."""
        return math.prod(self.input_shape) + sum(math.prod(layer.output_shape) for layer in every_layer(self.layers))

    def table(self) -> str:
        """Return the table of layers: output shapes, parameters, and multiply-adds of an example."""
        rows = list(_rows(self.layers, ""))
        multiply_adds = sum(layer.multiply_adds for layer in self.layers)
        total = ("total", "", f"{self.parameters.size:,}", f"{multiply_adds:,}")
        return "\n".join(table(("layer", "output", "parameters", "multiply-adds"), [*rows, total], num_words=2))


def _rows(layers: Sequence[Layer], indent: str) -> Iterator[tuple[str, str, str, str]]:
    """Yield the rows of the table for layers; those of a residual layer's body and shortcut are indented."""
    for layer in layers:
        shape = " x ".join(map(str, layer.output_shape))
        if isinstance(layer, Residual):
            yield f"{indent}{layer.name}", shape, "", ""
            for branch, inner in (("body", layer.body), ("shortcut", layer.shortcut)):
                yield f"{indent}  {branch}" + ("" if inner else ": the input"), "", "", ""
                yield from _rows(inner, f"{indent}    ")
        else:
            num_parameters = sum(p.size for p in layer.parameters)
            name = f"{layer.name}, frozen" if layer.is_frozen else layer.name
            yield f"{indent}{name}", shape, f"{num_parameters:,}", f"{layer.multiply_adds:,}"
