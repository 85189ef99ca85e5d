"""Which examples are for training, validation and test, in which order they come, and how they are normalised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.config.schema.data import Data
from partrain.data.dataset import Dataset, let_go
from partrain.errors import ConfigError
from partrain.kernels.randomness import permutation
from partrain.network.normalisation import Normalisation

# Images a piece, when something is measured over a data set that may be larger than memory; fewer, where so many
# would take much memory as float64.
_CHUNK = 512
_CHUNK_VALUES = 512 * 32768


@dataclass(frozen=True)
class SplitRange:
    """Examples `first` … `last`-1 of a file of the data set ("train" or "test")."""

    file: str
    first: int
    last: int

    @property
    def size(self) -> int:
        """How many examples."""
        return self.last - self.first


def split_examples(data: Data, dataset: Dataset) -> dict[str, SplitRange]:
    """Divide the data set into "train", "validation" and "test".

    Training examples are the first of the training file, those for validation follow them. Where the
    configuration gives neither number, the data set may say how many; else a sixth of the file is for validation.

    Raises
    ------
    ConfigError
        There are not as many examples as the configuration asks for.
    """
    there = len(dataset.train.labels)
    num_train, num_validation = data.train_examples, data.validation_examples
    if num_train is None and num_validation is None:
        num_validation = dataset.num_validation
    if num_train is None:
        num_validation = there // 6 if num_validation is None else num_validation
        num_train = max(1, there - num_validation)
    elif num_validation is None:
        num_validation = max(0, there - num_train)
    if num_train + num_validation > there:
        raise ConfigError(
            f"data.train_examples and data.validation_examples ask for {num_train:,} + {num_validation:,} "
            f"examples, but {dataset.name} has {there:,} for both; make them smaller"
        )
    return {
        "train": SplitRange("train", 0, num_train),
        "validation": SplitRange("train", num_train, num_train + num_validation),
        "test": SplitRange("test", 0, len(dataset.test.labels)),
    }


def epoch_order(num_examples: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order in which `epoch` (counted from 0) goes through the training examples."""
    return permutation(num_examples, seed=seed, purpose="shuffle", epoch=epoch)


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Return how many batches an epoch has; the last one may be smaller."""
    return -(-num_examples // batch_size)


def measure_normalisation(images_NCHW: NDArray[Any]) -> Normalisation:
    """Measure the training images, in two passes over pieces of them, in their order.

    A channel that is the same everywhere gets a deviation of 1.
    """
    N, C, H, W = images_NCHW.shape
    count = N * H * W
    size = max(1, min(_CHUNK, _CHUNK_VALUES // (C * H * W)))
    pieces = range(0, N, size)
    total = np.zeros(C)
    for first in pieces:
        total += images_NCHW[first : first + size].sum(axis=(0, 2, 3), dtype=np.float64)
        let_go(images_NCHW)
    mean = total / count
    squares = np.zeros(C)
    for first in pieces:
        deviation = images_NCHW[first : first + size] - mean[:, None, None]
        squares += (deviation * deviation).sum(axis=(0, 2, 3))
        let_go(images_NCHW)
    std = np.sqrt(squares / count)
    std[std == 0] = 1
    return Normalisation(tuple(mean.tolist()), tuple(std.tolist()))


def class_weights(labels_N: NDArray[np.int64], num_classes: int) -> tuple[float, ...]:
    """Return the weight of each class with which all classes count the same: N / (classes · examples of the class).

    That is what scikit-learn calls "balanced". Over an epoch the weights of all examples are 1 on average. A class
    without examples gets 0.
    """
    counts = np.bincount(labels_N, minlength=num_classes).tolist()
    num_there = sum(count > 0 for count in counts)
    return tuple(len(labels_N) / (num_there * count) if count else 0.0 for count in counts)


def fixed_normalisation(images_NCHW: NDArray[Any]) -> Normalisation:
    """Return one that is no function of the images' values, which a private training must not measure.

    Bytes become 0 to 2, so that the dark ground of digits stays 0; other numbers stay as they are.
    """
    C = images_NCHW.shape[1]
    return Normalisation((0.0,) * C, (127.5 if images_NCHW.dtype == np.uint8 else 1.0,) * C)
