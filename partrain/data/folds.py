"""Folds for a cross-validation: each example is for validation in one fold, and for training in the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from partrain.errors import ConfigError
from partrain.kernels.randomness import philox_words


def folds_of(labels_N: NDArray[np.int64], num_folds: int, seed: int, class_names: Sequence[str]) -> NDArray[np.int64]:
    """Return the number of each example's fold, from 1; the folds have equally many of each class, up to one.

    The examples of a class are numbered in their order. Each `num_folds` of them in a row go to different folds, in a
    random order. So the fold of an example depends on the seed, its class and its number in it: further examples at
    the end move none of the others.

    Parameters
    ----------
    labels_N : int64; read.
    num_folds : the number of folds.
    seed : the seed of the configuration.
    class_names : the name of each label, for the message.

    Raises
    ------
    ConfigError
        A class that has examples has fewer than there are folds.
    """
    folds_N = np.zeros(len(labels_N), np.int64)
    for label in np.unique(labels_N).tolist():
        members = np.flatnonzero(labels_N == label)
        if len(members) < num_folds:
            raise ConfigError(
                f"{num_folds} folds need at least {num_folds} examples of each class, but class {class_names[label]} "
                f"has {len(members)} for training and validation together; use fewer folds, or add examples"
            )
        num_blocks = -(-len(members) // num_folds)
        words = philox_words(num_blocks * num_folds, seed=seed, purpose="folds", name=str(label))
        order = np.argsort(words.reshape(num_blocks, num_folds), axis=1, kind="stable")
        folds_N[members] = 1 + order.reshape(-1)[: len(members)]
    return folds_N
