"""Shapes: N examples; C, H, W channels, rows, columns; E logits; T tiles; K numbers of a slot."""

from __future__ import annotations

import numpy as np
import pytest

from partrain.config.schema.activations import Gelu, LeakyRelu, Sigmoid, Silu, Tanh
from partrain.config.schema.layer_entries import Residual
from partrain.config.schema.layers import AvgPool, Conv, Dense, Dropout, Flatten, GlobalAvgPool, MaxPool, Relu
from partrain.config.schema.normalisation_layers import GroupNorm, LayerNorm
from partrain.kernels import loops
from partrain.network.execution import Factors, TrainingExamples
from partrain.network.fast_execution import FastExecution
from partrain.network.loops_execution import LoopsExecution
from partrain.network.network import Network
from partrain.network.normalisation import Normalisation
from partrain.parallel.array_plan import exchange_specs
from partrain.parallel.update.reduction import GradientReduction
from partrain.parallel.workers.tiles import Tiling

# The article's network, as in configs/mnist.yaml.
ARTICLE = [
    Conv(filters=8, kernel=5),
    Relu(),
    Conv(filters=8, kernel=5),
    Relu(),
    MaxPool(window=2),
    Flatten(),
    Dense(units=128),
    Relu(),
    Dense(units=10),
]


def build(*descriptions, shape=(2, 9, 8), num_classes=5):
    return Network(descriptions, shape, num_classes)


DROPOUT_DESCRIPTIONS = (
    Dropout(rate=0.1),
    Conv(filters=3, kernel=3, padding=1),
    Dropout(rate=0.1),
    Relu(),
    MaxPool(window=2),
    Dropout(rate=0.2),
    Conv(filters=4, kernel=[3, 2], padding=1),
    Relu(),
    Dropout(rate=0.1),
    Flatten(),
    Dropout(rate=0.1),
    Dense(units=7),
    Dropout(rate=0.1),
    Relu(),
    Dropout(rate=0.2),
    Dense(units=5),
)
NETWORKS = {
    "whole": build(
        Conv(filters=3, kernel=3, padding=1),
        Relu(),
        MaxPool(window=2),
        Conv(filters=4, kernel=[3, 2]),
        Relu(),
        Flatten(),
        Dense(units=7),
        Relu(),
        Dense(units=5),
    ),
    "strides and overlapping windows": build(
        Conv(filters=4, kernel=[2, 3], stride=[1, 2], padding=[3, 1]),
        MaxPool(window=[3, 2], stride=[2, 1]),
        Relu(),
        Flatten(),
        Dense(units=6),
    ),
    "dense layers alone": build(Flatten(), Dense(units=9), Relu(), Dense(units=5)),
    "one dense layer": build(Flatten(), Dense(units=5)),
    "a convolution as the last layer": build(Relu(), Conv(filters=5, kernel=[9, 8]), Flatten()),
    "layers without parameters in front": build(
        MaxPool(window=2, stride=1), Relu(), Conv(filters=3, kernel=3), Flatten(), Relu(), Dense(units=5)
    ),
    "ReLU twice, and at the end": build(
        Conv(filters=2, kernel=4), Relu(), Relu(), Conv(filters=3, kernel=2), Flatten(), Dense(units=5), Relu()
    ),
    "layers of one kind one after the other": build(
        Conv(filters=3, kernel=2), Conv(filters=2, kernel=3), Flatten(), Dense(units=6), Dense(units=5)
    ),
    "two dense layers without a ReLU": build(Flatten(), Dense(units=6), Dense(units=5)),
    "pools one after the other": build(
        Conv(filters=3, kernel=2), MaxPool(window=3, stride=1), MaxPool(window=2), Flatten(), Dense(units=5)
    ),
    "pooling before ReLU, many filters": build(
        Conv(filters=17, kernel=3, padding=2),
        MaxPool(window=3, stride=2),
        Relu(),
        Conv(filters=9, kernel=2, padding=1),
        MaxPool(window=2),
        Flatten(),
        Dense(units=33),
        Relu(),
        Dense(units=5),
    ),
    "one place is left": build(
        Conv(filters=6, kernel=3), Relu(), Conv(filters=13, kernel=[7, 6]), Relu(), Flatten(), Dense(units=5)
    ),
    "one place of the only convolution": build(Conv(filters=6, kernel=[9, 8]), Relu(), Flatten()),
    "padding wider than the kernel, strides": build(
        Conv(filters=8, kernel=2, padding=3, stride=2),
        Relu(),
        MaxPool(window=2, stride=1),
        Conv(filters=16, kernel=3),
        Relu(),
        MaxPool(window=2),
        Flatten(),
        Dense(units=5),
    ),
    "dropout everywhere": build(*DROPOUT_DESCRIPTIONS),
    "dropout before pooling, and of one channel": build(
        Conv(filters=1, kernel=2),
        Dropout(rate=0.3),
        MaxPool(window=2, stride=1),
        Dropout(rate=0.2),
        Conv(filters=9, kernel=2),
        Dropout(rate=0.3),
        Relu(),
        Flatten(),
        Dense(units=5),
    ),
    "dropout that drops nothing": build(Flatten(), Dropout(rate=0), Dense(units=6), Relu(), Dense(units=5)),
    "Toom-Cook convolutions, with pooling and without": build(
        Conv(filters=9, kernel=3, padding=1),
        Relu(),
        Conv(filters=8, kernel=3, padding=1),
        Conv(filters=17, kernel=[2, 5], padding=[1, 2]),
        Relu(),
        MaxPool(window=2),
        Conv(filters=8, kernel=3, padding=1),
        Relu(),
        MaxPool(window=2, stride=1),
        Flatten(),
        Dense(units=5),
    ),
    "residual layers, with ReLU and without": build(
        Conv(filters=6, kernel=3, padding=1),
        Relu(),
        Residual(body=[Conv(filters=6, kernel=3, padding=1), Relu(), Conv(filters=6, kernel=3, padding=1)]),
        Relu(),
        Residual(body=[Conv(filters=9, kernel=3, padding=1, stride=2)], shortcut=[Conv(filters=9, kernel=1, stride=2)]),
        Residual(body=[Residual(body=[Relu(), Conv(filters=9, kernel=1)]), Conv(filters=9, kernel=1)]),
        Flatten(),
        Dense(units=6),
        Residual(body=[Relu(), Dense(units=6)]),
        Residual(body=[Dense(units=5)], shortcut=[Dense(units=5)]),
    ),
    "a residual layer alone": build(
        Residual(body=[Conv(filters=2, kernel=3, padding=1)]),
        Flatten(),
        Residual(body=[Dense(units=5)], shortcut=[Dense(units=7), Dense(units=5)]),
        Relu(),
    ),
    "residual layers whose branches work in place": build(
        Residual(body=[Relu()]),
        Residual(body=[Relu()], shortcut=[MaxPool(window=1)]),
        Conv(filters=3, kernel=2),
        Relu(),
        Residual(body=[Relu(), Dropout(rate=0.2)], shortcut=[Dropout(rate=0.3), Relu()]),
        Residual(body=[Dropout(rate=0.2), Conv(filters=3, kernel=1), Dropout(rate=0.1)]),
        Relu(),
        Residual(body=[Conv(filters=3, kernel=1), Dropout(rate=0.1)], shortcut=[Conv(filters=3, kernel=1)]),
        Residual(body=[Flatten(), Dropout(rate=0.3)], shortcut=[Dropout(rate=0.2), Flatten()]),
        Dense(units=6),
        Relu(),
        Residual(body=[Dropout(rate=0.2), Dense(units=6), Dropout(rate=0.2)]),
        Dense(units=5),
    ),
    "groups, dilation, and no bias": build(
        Conv(filters=6, kernel=[3, 2], groups=2, padding=1),
        Conv(filters=9, kernel=3, groups=3, dilation=[1, 2], stride=2, padding=[0, 2]),
        Relu(),
        Conv(filters=4, kernel=2, bias=False, padding=1),
        Relu(),
        Conv(filters=20, kernel=1, bias=False, groups=4),
        Flatten(),
        Dense(units=5),
    ),
    "depthwise convolutions, also with several filters for a channel": build(
        Conv(filters=2, kernel=3, groups=2, padding=1),
        Conv(filters=18, kernel=1),
        Relu(),
        Conv(filters=18, kernel=3, groups=18, stride=2, padding=1, bias=False),
        Conv(filters=36, kernel=[2, 3], groups=18, padding=2, dilation=2),
        Relu(),
        GlobalAvgPool(),
        Dense(units=5),
    ),
    "average pooling and padded pooling": build(
        AvgPool(window=2, stride=1, padding=1),
        Conv(filters=10, kernel=3, padding=1),
        MaxPool(window=3, stride=2, padding=1),
        Conv(filters=3, kernel=2, padding=1, bias=False),
        MaxPool(window=[3, 2], stride=1, padding=1),
        AvgPool(window=[1, 2]),
        GlobalAvgPool(),
        Flatten(),
        Dense(units=5),
    ),
    "Toom-Cook convolutions without ReLU": build(
        Conv(filters=16, kernel=3, padding=1),
        Conv(filters=17, kernel=3, padding=1),
        Conv(filters=8, kernel=3, padding=1, bias=False),
        Conv(filters=9, kernel=5, padding=2),
        MaxPool(window=2),
        Flatten(),
        Dense(units=5),
        shape=(3, 12, 12),
    ),
    "group normalisation, with ReLU and without": build(
        Conv(filters=6, kernel=3, padding=1),
        GroupNorm(groups=3),
        Relu(),
        Residual(
            body=[GroupNorm(groups=6), Relu(), Conv(filters=18, kernel=3, padding=1), GroupNorm(groups=6)],
            shortcut=[Conv(filters=18, kernel=1), GroupNorm(groups=2)],
        ),
        Conv(filters=8, kernel=1),
        GroupNorm(groups=1),
        Dropout(rate=0.1),
        Flatten(),
        Dense(units=12),
        GroupNorm(groups=2),
        Relu(),
        Dense(units=5),
    ),
    "layer normalisation": build(
        LayerNorm(),
        Conv(filters=6, kernel=3, padding=1),
        LayerNorm(),
        Relu(),
        Conv(filters=9, kernel=1),
        Residual(body=[LayerNorm(), Relu()]),
        Flatten(),
        LayerNorm(),
        Dense(units=17),
        LayerNorm(),
        Relu(),
        Dense(units=5),
    ),
    "activations": build(
        Conv(filters=5, kernel=3, padding=1),
        LeakyRelu(slope=0.2),
        Residual(body=[Gelu(), Conv(filters=5, kernel=1), Silu()]),
        GroupNorm(groups=5),
        Gelu(approximate="tanh"),
        Flatten(),
        Dense(units=9),
        Tanh(),
        Dropout(rate=0.1),
        Dense(units=5),
        Sigmoid(),
        Dense(units=5),
    ),
    "normalisation first and last": build(GroupNorm(groups=2), Flatten(), Dense(units=5), LayerNorm()),
    "ReLU behind flatten": build(Conv(filters=3, kernel=3), Flatten(), Relu(), Dense(units=5)),
}
ALL_NETWORKS = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
WHOLE = NETWORKS["whole"]


class Batch:
    """A batch that is computed some tiles at a time, as workers and the coordinator do it between them."""

    def __init__(self, network, kernels, parameters, tile, num_examples, **options):
        self.network, self.tile, self.dtype = network, tile, parameters.dtype
        self.epoch = 0  # of what is drawn in a pass of training
        self.drawn_for = np.arange(num_examples)  # the training set's examples that these are
        specs = exchange_specs(network, num_examples, Tiling(tile), str(self.dtype), num_examples)
        # What an earlier step left there must not matter.
        self.arrays = {name: np.full(spec.shape, 77, spec.dtype) for name, spec in specs.items()}
        self.logits = np.full((num_examples, network.num_outputs), np.nan, self.dtype)
        num_channels = network.input_shape[0]
        as_they_are = Normalisation((0.0,) * num_channels, (1.0,) * num_channels)
        if kernels == "fast":
            self.execution = FastExecution(network, parameters, as_they_are, tile, **options)
        else:
            self.execution = LoopsExecution(network, parameters, as_they_are, tile, str(self.dtype))
        self.reduction = GradientReduction(network, kernels, self.arrays, Tiling(tile), str(self.dtype))

    def forward(self, x, first, last, *, trains):
        """Return the logits of the examples `first` … `last`-1, and keep them."""
        training = TrainingExamples(seed=3, epoch=self.epoch, indices_N=self.drawn_for[first:last]) if trains else None
        logits = self.execution.forward(x, np.arange(first, last), training)
        self.logits[first:last] = logits
        return logits

    def compute(self, x, labels, first, last, *, backward=True, dlogits=None):
        """Compute the examples `first` … `last`-1 of the batch, at most as many as the execution takes at once.

        The gradient at the logits is `dlogits`, or that of cross-entropy.
        """
        assert last - first <= self.execution.capacity
        losses, predictions = self.arrays["losses"][first:last], self.arrays["predictions"][first:last]
        logits = self.forward(x, first, last, trains=backward)
        own_dlogits = np.empty_like(logits)
        loops.softmax_cross_entropy(
            logits, labels[first:last], losses, predictions, np.empty(last - first), own_dlogits
        )
        if dlogits is not None:
            own_dlogits = dlogits[first:last].astype(self.dtype)
        if backward:
            slots = self.arrays["tile_sums"][first // self.tile : -(-last // self.tile)]
            self.execution.backward(own_dlogits, slots, self.factors(first, last))

    def factors(self, first, last):
        """Return the rows of the examples `first` … `last`-1."""
        return {
            layer.name: Factors(
                self.arrays[f"{layer.name}.inputs"][first:last], self.arrays[f"{layer.name}.deltas"][first:last]
            )
            for layer in self.network.dense_layers
        }

    def compute_tile(self, k, x, labels, **options):
        self.compute(x, labels, k * self.tile, min((k + 1) * self.tile, len(x)), **options)

    def gradient(self, x, labels, order=None, **options):
        """Return the losses and the sum of the gradients; `order` is of single tiles."""
        if order is None:
            for first in range(0, len(x), self.execution.capacity):
                self.compute(x, labels, first, min(first + self.execution.capacity, len(x)), **options)
        else:
            for k in order:
                self.compute_tile(k, x, labels, **options)
        return self.arrays["losses"][: len(x)].copy(), self.reduction.reduce(len(x)).copy()

    def results(self):
        """Return all that a call writes, by name: logits, slots, factors, losses, predictions."""
        written = {name: a for name, a in self.arrays.items() if name not in ("parameters", "indices")}
        return {"logits": self.logits.copy()} | {name: a.copy() for name, a in written.items()}


def assert_same_bits(actual, expected):
    assert actual.keys() == expected.keys()
    for name, array in actual.items():
        assert array.tobytes() == expected[name].tobytes(), name


def drawn(network, num_examples, seed=0, dtype="float64"):
    """Draw parameters, images and labels; biases too, so that their gradients are seen to matter."""
    rng = np.random.default_rng(seed)
    parameters = network.parameters.initial_values(seed, "float64") + 0.1 * rng.standard_normal(network.parameters.size)
    x = rng.standard_normal((num_examples, *network.input_shape))
    labels = rng.integers(0, min(5, network.num_outputs), num_examples)
    return parameters.astype(dtype), x.astype(np.float32), labels


def computed(network, kernels, parameters, x, labels, tile=4, **options):
    return Batch(network, kernels, parameters, tile, len(x)).gradient(x, labels, **options)
