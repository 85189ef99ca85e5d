"""Labels that are wrong on purpose: to see how a training takes it, and whether the wrong ones are found."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from partrain.errors import ConfigError
from partrain.kernels.randomness import permutation, philox_words


def flipped_examples(num_train: int, share: float, seed: int) -> NDArray[np.int64]:
    """Return which training examples get a wrong label: a share of them, rounded, in ascending order."""
    order = permutation(num_train, seed=seed, purpose="label noise, examples")
    return np.sort(order[: round(share * num_train)])


def flip_labels(labels_N: NDArray[np.int64], share: float, num_classes: int, seed: int) -> NDArray[np.int64]:
    """Return the labels of the training examples with a share of wrong ones.

    Each wrong one is any other class, all with the same probability, by a random word of the example's own.

    Raises
    ------
    ConfigError
        There is no other class.
    """
    if num_classes < 2:
        raise ConfigError("data.label_noise: a label is made wrong by another class, and the data has only one")
    flipped = flipped_examples(len(labels_N), share, seed)
    words = philox_words(len(labels_N), seed=seed, purpose="label noise, classes")[flipped]
    labels = np.array(labels_N)
    labels[flipped] = (labels[flipped] + 1 + (words % np.uint64(num_classes - 1)).astype(np.int64)) % num_classes
    return labels
