"""Sources of random words for private training."""

from __future__ import annotations

import os
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from partrain.kernels.randomness import philox_words

Words = NDArray[np.uint64]


class RandomSource(Protocol):
    """A source of words that are uniformly distributed over all 64-bit integers."""

    def words(self, num_words: int, *, purpose: str, step: int) -> Words:
        """Return the words for one purpose in one step."""


class SecureSource:
    """The system's cryptographically secure generator: it never repeats its words, not even after a resume."""

    def words(self, num_words: int, *, purpose: str, step: int) -> Words:
        """See `RandomSource`."""
        return np.frombuffer(bytearray(os.urandom(8 * num_words)), np.uint64)


class SeededSource:
    """Words that are a function of the seed, for tests: with the seed, the noise can be computed and subtracted."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def words(self, num_words: int, *, purpose: str, step: int) -> Words:
        """See `RandomSource`."""
        return philox_words(num_words, seed=self._seed, purpose=purpose, epoch=step)
