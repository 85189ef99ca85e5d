"""Label noise: makes a share of the training labels wrong, to test training and the search for wrong labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from partrain.errors import ConfigError
from partrain.kernels.randomness import permutation, philox_words


def flipped_examples(num_train: int, share: float, seed: int) -> NDArray[np.int64]:
    """Return the indices of the training examples that get a wrong label, in ascending order.

    Their number is `share` times `num_train`, rounded.
    """
    order = permutation(num_train, seed=seed, purpose="label noise, examples")
    return np.sort(order[: round(share * num_train)])


def flip_labels(labels_N: NDArray[np.int64], share: float, num_classes: int, seed: int) -> NDArray[np.int64]:
    """Return the training labels with a share of wrong ones.

    A wrong label is any other class with the same probability, drawn with a random word of the example's own.

    Parameters
    ----------
    labels_N : int64; read.

    Raises
    ------
    ConfigError
        There is only one class.
    """
    if num_classes < 2:
        raise ConfigError("data.label_noise: a wrong label needs a second class, and the data has only one")
    flipped = flipped_examples(len(labels_N), share, seed)
    words = philox_words(len(labels_N), seed=seed, purpose="label noise, classes")[flipped]
    labels = np.array(labels_N)
    labels[flipped] = (labels[flipped] + 1 + (words % np.uint64(num_classes - 1)).astype(np.int64)) % num_classes
    return labels
