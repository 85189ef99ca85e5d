"""A network: its layers, its parameters, and what a gradient of it consists of on its way home."""

from __future__ import annotations

import math
from collections.abc import Sequence

from partrain.config.schema.values import Section
from partrain.errors import ConfigError
from partrain.network.layers import Dense, Dropout, Layer, Shape, build_layers
from partrain.network.parameters import ParameterLayout

# Examples that a worker computes at once, at least: so many share the loading of the weights, and what Python takes
# for a call. With 8 dense networks take a tenth longer, with 32 few take less.
EXAMPLES_A_CALL = 16


def examples_a_call(tile: int) -> int:
    """Return how many examples the fast execution computes at once: whole tiles."""
    return tile * -(-EXAMPLES_A_CALL // tile)


class Network:
    """The shapes of a whole network. Plain data: it can be sent to a worker, and imports no kernel.

    Attributes
    ----------
    layers : the chain, in order.
    parameters : all parameters in network order.
    tile_sums : the convolutions' parameters, whose gradients travel as one sum a tile. They are the beginning
        of `parameters`, since only a convolution gives a convolution its input.
    trained_layers : the layers that have parameters.
    kinds : the kinds of its layers, each once.
    dense_layers : those of them whose gradients travel as factors (network.execution.Factors).
    """

    def __init__(self, descriptions: Sequence[Section], input_shape: Shape, num_classes: int) -> None:
        """Check and build.

        Raises
        ------
        ConfigError
            A layer does not fit its input, or the last one not the number of classes.
        """
        self.layers: tuple[Layer, ...] = build_layers(descriptions, input_shape)
        self.input_shape = input_shape
        self.parameters = ParameterLayout(p for layer in self.layers for p in layer.parameters)
        self.kinds = tuple(dict.fromkeys(type(layer) for layer in self.layers))
        self.trained_layers = tuple(layer for layer in self.layers if layer.parameters)
        self.dense_layers = tuple(layer for layer in self.layers if isinstance(layer, Dense))
        self.tile_sums = ParameterLayout(
            p for layer in self.layers if not isinstance(layer, Dense) for p in layer.parameters
        )
        last = self.layers[-1]
        for place in range(len(self.layers) - 1, -1, -1):
            if self.layers[place].parameters:
                break
            if isinstance(self.layers[place], Dropout):
                raise ConfigError(
                    f"network.{place} ({self.layers[place].name}): it would drop outputs of the network, and with them "
                    "the score of an example's own class; put it before the last `dense` layer"
                )
        if len(last.output_shape) != 1:
            raise ConfigError(
                f"network: the last layer ({last.name}) gives {last.output_shape}, not a row of numbers; "
                f"end with `flatten` and `dense: {{units: {num_classes}}}`"
            )
        self.num_outputs = math.prod(last.output_shape)
        if self.num_outputs < num_classes:
            raise ConfigError(
                f"network.{len(self.layers) - 1} ({last.name}): {self.num_outputs} outputs are too few for the "
                f"{num_classes} classes of the data; give it at least {num_classes} units"
            )
        if not self.parameters.size:
            raise ConfigError("network: there is nothing to train; add a `conv` or a `dense` layer")

    @property
    def num_activations(self) -> int:
        """How many numbers one example's inputs and outputs of all layers are."""
        return math.prod(self.input_shape) + sum(math.prod(layer.output_shape) for layer in self.layers)

    def table(self) -> str:
        """Return the table of layers: output shapes, parameters, multiply-adds an example."""
        rows = [("layer", "output", "parameters", "multiply-adds")]
        for layer in self.layers:
            shape = " x ".join(str(size) for size in layer.output_shape)
            num_parameters = sum(p.size for p in layer.parameters)
            rows.append((layer.name, shape, f"{num_parameters:,}", f"{layer.multiply_adds:,}"))
        total = sum(layer.multiply_adds for layer in self.layers)
        rows.append(("total", "", f"{self.parameters.size:,}", f"{total:,}"))
        widths = [max(len(row[k]) for row in rows) for k in range(4)]
        return "\n".join(
            f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}" for a, b, c, d in rows
        )
