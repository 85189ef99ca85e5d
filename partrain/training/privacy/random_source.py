"""Sources of random words for private training."""

from __future__ import annotations

import os
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from partrain.kernels.chacha20 import WIDTH, chacha20
from partrain.kernels.randomness import philox_words

Words = NDArray[np.uint64]


class RandomSource(Protocol):
    """A source of words that are uniformly distributed over all 64-bit integers."""

    def words(self, num_words: int, *, purpose: str, step: int, first: int = 0) -> Words:
        """Return words for one purpose in one step, from number `first` on, which is a multiple of 4.

        Several threads may call this at a time.
        """


# Words of 64 bits in a group of blocks.
_WORDS_OF_GROUP = 16 * WIDTH // 2


class SecureSource:
    """Secret words, which no one can compute and which never come again, not even after a resume.

    For each call, the system's cryptographically secure generator gives a key of 256 bits, which ChaCha20 extends to as
    many words as are asked for. The key is not kept. Linux extends its own keys in the same way, but takes 7 times as
    long: 18 of 84 µs of an example with the network of mnist.yaml. The kernel is in `parallel.required_kernels`.
    """

    def words(self, num_words: int, *, purpose: str, step: int, first: int = 0) -> Words:
        """See `RandomSource`."""
        key_8 = np.frombuffer(bytearray(os.urandom(32)), np.uint32)
        words_G16W = np.empty((-(-num_words // _WORDS_OF_GROUP), 16, WIDTH), np.uint32)
        chacha20(key_8, words_G16W)
        return words_G16W.reshape(-1).view(np.uint64)[:num_words]


class SeededSource:
    """Words that are a function of the seed, for tests: with the seed, the noise can be computed and subtracted."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def words(self, num_words: int, *, purpose: str, step: int, first: int = 0) -> Words:
        """See `RandomSource`."""
        return philox_words(num_words, seed=self._seed, purpose=purpose, epoch=step, first=first)
