"""Random networks with residual layers, nested too."""

from __future__ import annotations

import math

import numpy as np

from partrain.config.schema.activations import Gelu, LeakyRelu, Silu, Tanh
from partrain.config.schema.layer_entries import Residual
from partrain.config.schema.layers import Conv, Dense, Dropout, Flatten, MaxPool, Relu
from partrain.config.schema.normalisation_layers import BatchNorm, GroupNorm, LayerNorm
from partrain.network.network import Network


class _Drawing:
    """Draws layers that fit; each method returns them, and the shape after them."""

    def __init__(self, seed, has_normalisation):
        self.rng = np.random.default_rng(seed)
        self.has_normalisation = has_normalisation

    def layer(self, shape, depth):
        """Draw a layer that keeps the rows and columns, or the vector a vector."""
        kinds = ["weights", "relu", "dropout", "residual"] if depth < 2 else ["weights", "relu", "dropout"]
        kind = self.rng.choice(kinds)
        if kind == "relu":
            return [Relu()], shape
        if kind == "dropout":
            return [Dropout(rate=0.0)], shape
        if kind == "residual":
            return self.residual(shape, depth + 1)
        return self.weights(shape, int(self.rng.integers(1, 20)))

    def normalised(self, shape):
        """Draw a normalisation, with an activation or not."""
        groups = int(self.rng.choice([k for k in range(1, shape[0] + 1) if shape[0] % k == 0 and shape[0] > k] or [0]))
        kinds = [LayerNorm()]
        if len(shape) == 3:
            kinds += [BatchNorm(), BatchNorm(), *([GroupNorm(groups=groups)] * 2 if groups else [])]
        activations = [Relu(), Relu(), Silu(), Gelu(), Tanh(), LeakyRelu()]
        active = [activations[self.rng.integers(len(activations))]] if self.rng.random() < 0.7 else []
        return [kinds[self.rng.integers(len(kinds))], *active]

    def weights(self, shape, size):
        if len(shape) == 1:
            return [Dense(units=size)], (size,)
        # Sizes that no Toom-Cook convolution has: in whole numbers, the direct one is exact.
        kernel = [[1, 1], [3, 1], [1, 3]][self.rng.integers(0, 3)]
        padding = [size // 2 for size in kernel]
        output = (size, *shape[1:])
        if self.has_normalisation:
            convolution = Conv(filters=size, kernel=3, padding=1, bias=False)
            return [convolution, *self.normalised(output)], output
        return [Conv(filters=size, kernel=kernel, padding=padding)], output

    def residual(self, shape, depth):
        body, output = [], shape
        for _ in range(self.rng.integers(1, 4)):
            layers, output = self.layer(output, depth)
            body += layers
        shortcut = []
        if output != shape or self.rng.random() < 0.2:
            is_flattened = len(output) < len(shape)
            shortcut, _ = self.weights((math.prod(shape),) if is_flattened else shape, output[0])
            shortcut = [*([Flatten()] if is_flattened else []), *shortcut]
            shortcut = [*([Relu()] if self.rng.random() < 0.3 else []), *shortcut]
        if len(output) == 3 and self.rng.random() < 0.15:
            body, shortcut, output = [*body, Flatten()], [*shortcut, Flatten()], (math.prod(output),)
        relu = [Relu()] if self.rng.random() < 0.5 else []
        return [Residual(body=body, shortcut=shortcut), *relu], output


def random_residual_network(seed, *, has_normalisation=False):
    """Draw layers, and the size of the images."""
    drawing = _Drawing(seed, has_normalisation)
    shape = input_shape = tuple(int(size) for size in drawing.rng.integers((1, 4, 4), (4, 10, 10)))
    descriptions = []
    for _ in range(drawing.rng.integers(1, 5)):
        if len(shape) == 3 and min(shape[1:]) > 3 and drawing.rng.random() < 0.2:
            descriptions.append(MaxPool(window=2))
            shape = (shape[0], shape[1] // 2, shape[2] // 2)
        draw = drawing.residual if drawing.rng.random() < 0.7 else drawing.layer
        layers, shape = draw(shape, 0)
        descriptions += layers
    if len(shape) == 3:
        descriptions.append(Flatten())
    return Network([*descriptions, Dense(units=int(drawing.rng.integers(2, 12)))], input_shape, 1)
