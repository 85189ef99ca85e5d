"""Random numbers as a pure function of seed, purpose, epoch and name.

There is no generator whose state a checkpoint would have to save: each draw takes the raw words of a Philox generator
whose key is a digest of these values. Raw words, because the streams of NumPy's `Generator` methods may change between
releases. kernels.philox draws the numbers of each example, with a key of the same values.

The same arguments give the same bits on every processor: see kernels.elementary.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011 (Philox4x64-10).
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from partrain.kernels.elementary import cos_sin_pi, log

# Pairs of normals that are computed at once: their arrays fit into the processor's cache.
_PIECE_PAIRS = 4096


def philox_words(
    num_words: int, *, seed: int, purpose: str, epoch: int = 0, name: str = "", first: int = 0
) -> NDArray[np.uint64]:
    """Draw `num_words` raw 64-bit words, a function of the keyword arguments.

    Parameters
    ----------
    num_words : number of words.
    seed : the seed of the run.
    purpose : e.g. "shuffle"; two purposes share no words.
    epoch : counted from 0, for numbers that are drawn in each epoch.
    name : the name of a parameter or file, for numbers that are drawn once for each.
    first : the number of the first word, counted from 0: a multiple of 4, the words of a block.

    Returns
    -------
    uint64 array of shape (num_words,).
    """
    key = int.from_bytes(_digest(seed, purpose, epoch, name)[:16], "little")
    assert first % 4 == 0
    words: NDArray[np.uint64] = np.random.Philox(key=key, counter=first // 4).random_raw(num_words)
    return words


def philox_key(*, seed: int, purpose: str, epoch: int, name: str = "") -> np.uint64:
    """Return the key for kernels.philox; the arguments are those of `philox_words`."""
    return np.uint64(int.from_bytes(_digest(seed, purpose, epoch, name)[:8], "little"))


def _digest(seed: int, purpose: str, epoch: int, name: str) -> bytes:
    return hashlib.sha256("\0".join(("partrain", purpose, str(seed), str(epoch), name)).encode()).digest()


def uniforms(num_values: int, *, seed: int, purpose: str, epoch: int = 0, name: str = "") -> NDArray[np.float64]:
    """Draw `num_values` float64 numbers from [0, 1): the upper 53 bits of a word, divided by 2**53."""
    words = philox_words(num_values, seed=seed, purpose=purpose, epoch=epoch, name=name)
    return _uniforms_of_words(words)


def _uniforms_of_words(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def standard_normals(
    num_values: int, *, seed: int, purpose: str, epoch: int = 0, name: str = ""
) -> NDArray[np.float64]:
    """Draw `num_values` float64 numbers from N(0, 1) by the Box-Muller transform.

    Pairs (u, v) of uniforms become sqrt(-2 log(1-u)) · (cos 2πv, sin 2πv).

    Source: Box, Muller, "A note on the generation of random normal deviates", 1958.
    """
    words = philox_words(num_values + num_values % 2, seed=seed, purpose=purpose, epoch=epoch, name=name)
    return normals_of_words(words)[:num_values]


def normals_of_words(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Turn an even number of words into as many numbers from N(0, 1); see `standard_normals`."""
    words_P2 = words.reshape(-1, 2)
    normals_P2 = np.empty(words_P2.shape)
    for first in range(0, len(words_P2), _PIECE_PAIRS):
        piece = slice(first, first + _PIECE_PAIRS)
        uniforms_2P = _uniforms_of_words(words_P2[piece].T.copy())
        radius = np.sqrt(-2.0 * log(1.0 - uniforms_2P[0]))  # the difference is exact
        cosine, sine = cos_sin_pi(2.0 * uniforms_2P[1])
        normals_P2[piece, 0] = radius * cosine
        normals_P2[piece, 1] = radius * sine
    return normals_P2.reshape(-1)


def permutation(num_items: int, *, seed: int, purpose: str, epoch: int = 0) -> NDArray[np.int64]:
    """Return 0 … num_items-1, sorted by a random word for each; equal words keep their order."""
    words = philox_words(num_items, seed=seed, purpose=purpose, epoch=epoch)
    order: NDArray[np.int64] = np.argsort(words, kind="stable")
    return order
