"""Writes a commented configuration to start from, given what the training images are like."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

# Below these numbers of training examples, images are augmented, and batches are small.
_FEW, _VERY_FEW = 5_000, 1_000
# A ratio of the numbers of examples in the classes above which rare classes get more weight.
_UNBALANCED = 3
# A network has at most so many pairs of convolution and pooling, which halve images down to this size.
_MAX_STAGES, _MIN_SIDE = 3, 4
_FIRST_FILTERS = 16
# Training is to have about so many steps.
_NUM_STEPS, _MIN_EPOCHS, _MAX_EPOCHS = 2_000, 5, 60

MNIST = """\
# A configuration of partrain for MNIST, written by `partrain init`. It reaches about 99 % on the test set.
# `partrain config` explains every key; all keys that are not here have their defaults.
format: 1
name: mnist                 # part of the name of each run
seed: 0                     # runs with another seed have other initial parameters and another order of examples
data:
  name: mnist               # read from this machine, or downloaded
  train_examples: 50000
  validation_examples: 10000  # the examples after the training examples
  when_unavailable: synthetic-digits  # if there is no way to MNIST; `error` stops instead
network:                    # softmax and cross-entropy are added by partrain
  - conv: {filters: 8, kernel: 5}
  - relu
  - conv: {filters: 8, kernel: 5}
  - relu
  - max_pool: {window: 2}
  - flatten
  - dense: {units: 128}
  - relu
  - dense: {units: 10}      # one for each class
training:
  epochs: 2                 # more epochs: a little more accuracy
  batch_size: 32
  optimizer: {name: adam, lr: 0.003}
  schedule: {name: cosine, warmup_steps: 200}  # the rate rises for 200 steps, and falls to 0 at the end
"""


@dataclass(frozen=True)
class Pictures:
    """What a directory of images is like.

    Attributes
    ----------
    name : the name of the configuration.
    path : the directory.
    description : lines about what was found, for comments; printable.
    num_classes, num_train : numbers of classes and of training examples.
    imbalance : the number of images of the largest class, divided by that of the smallest.
    size : rows and columns to resize the images to.
    channels : 1 grey, 3 colour.
    has_broken : whether an image cannot be read.
    """

    name: str
    path: str
    description: tuple[str, ...]
    num_classes: int
    num_train: int
    imbalance: float
    size: tuple[int, int]
    channels: int
    has_broken: bool


def write_starter(pictures: Pictures) -> str:
    """Return the text of a configuration that trains on the images."""
    batch_size = 16 if pictures.num_train < _VERY_FEW else 32 if pictures.num_train < 10 * _VERY_FEW else 64
    per_epoch = math.ceil(pictures.num_train / batch_size)
    epochs = min(_MAX_EPOCHS, max(_MIN_EPOCHS, math.ceil(_NUM_STEPS / per_epoch)))
    rows, columns = pictures.size
    broken = "skip" if pictures.has_broken else "error"
    lines = [
        "# A configuration of partrain for a directory of images, written by `partrain init`, which found:",
        *(f"#   {line}" for line in pictures.description),
        "# `partrain config` explains every key; all keys that are not here have their defaults.",
        "format: 1",
        f"name: {_quoted(pictures.name)}  # part of the name of each run",
        "seed: 0  # runs with another seed have other initial parameters and another order of examples",
        "data:",
        "  name: folder",
        f"  path: {_quoted(pictures.path)}",
        f"  size: [{rows}, {columns}]  # rows and columns; larger images show more, and take longer",
        f"  channels: {pictures.channels}  # 1 grey, 3 colour",
        f"  on_broken: {broken}  # error: stop at an image that cannot be read; skip: leave it out",
        *_network(pictures),
        "training:",
        f"  epochs: {epochs}  # of {per_epoch:,} steps each",
        f"  batch_size: {batch_size}",
        "  optimizer: {name: adam, lr: 0.002}  # the first value to try others of: 0.005, 0.0005",
        f"  schedule: {{name: cosine, warmup_steps: {min(200, per_epoch * epochs // 20)}}}  # the rate rises for these "
        "steps, and falls to 0 at the end",
    ]
    if pictures.imbalance > _UNBALANCED:
        lines.append("  class_weights: balanced  # the classes differ much in size")
    if pictures.num_train < _FEW:
        shift = max(1, min(pictures.size) // 16)
        lines += [
            "  # Random changes make up for few images; keep those that leave the class of an image as it is.",
            f"  augment: {{shift: {shift}, rotation: 10, scale: 0.1}}",
        ]
    return "\n".join(lines) + "\n"


def suggested_network(
    rows: int, columns: int, num_classes: int, *, with_dropout: bool = False
) -> list[str | dict[str, dict[str, Any]]]:
    """Return a network for images of a size, as a configuration has it: convolutions while the images are large.

    Parameters
    ----------
    rows, columns : the size of the images.
    num_classes : the number of classes.
    with_dropout : whether to add dropout, against overfitting to few images.
    """
    layers: list[str | dict[str, dict[str, Any]]] = []
    filters = _FIRST_FILTERS
    for _ in range(_MAX_STAGES):
        if min(rows, columns) < 2 * _MIN_SIDE:
            break
        conv = {"filters": filters, "kernel": 3, "padding": 1}
        layers += [{"conv": conv}, "relu", {"max_pool": {"window": 2}}]
        rows, columns, filters = rows // 2, columns // 2, 2 * filters
    layers.append("flatten")
    if with_dropout:
        layers.append({"dropout": {"rate": 0.3}})
    return [*layers, {"dense": {"units": 64}}, "relu", {"dense": {"units": num_classes}}]


def _network(pictures: Pictures) -> list[str]:
    has_few = pictures.num_train < _FEW
    *layers, last = suggested_network(*pictures.size, pictures.num_classes, with_dropout=has_few)
    return [
        "network:  # softmax and cross-entropy are added by partrain",
        *(f"  - {_layer(layer)}{'  # against overfitting to few images' * ('dropout' in layer)}" for layer in layers),
        f"  - {_layer(last)}  # one for each class",
    ]


def _layer(layer: str | dict[str, dict[str, Any]]) -> str:
    """Return an entry of the network in one line of YAML."""
    if isinstance(layer, str):
        return layer
    ((kind, fields),) = layer.items()
    return f"{kind}: {{{', '.join(f'{key}: {value}' for key, value in fields.items())}}}"


def _quoted(text: str) -> str:
    """Return a text in double quotes, as YAML and JSON write it."""
    return json.dumps(text, ensure_ascii=not text.isprintable())
