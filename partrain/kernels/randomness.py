"""Random numbers as a pure function of what they are for.

There is no generator with a state that a resumed run would have to bring back: every draw names its seed,
its purpose, its epoch and (for initial values) its parameter, and gets the raw words of a Philox generator
whose key is a digest of these names. Raw words, because the streams of NumPy's `Generator` methods may
change between releases. What is drawn for each example comes from kernels.philox, with a key of the same names.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011 (Philox4x64-10).
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def philox_words(num_words: int, *, seed: int, purpose: str, epoch: int = 0, name: str = "") -> NDArray[np.uint64]:
    """Draw `num_words` raw 64-bit words that depend on the keyword arguments alone.

    Parameters
    ----------
    num_words : how many words.
    seed : the run's seed.
    purpose : what the words are for, e.g. "shuffle"; two purposes share no words.
    epoch : the epoch, counted from 0, for what is drawn anew in each.
    name : the parameter's or file's name, for what is drawn once for each.

    Returns
    -------
    uint64 array of shape (num_words,).
    """
    key = int.from_bytes(_digest(seed, purpose, epoch, name)[:16], "little")
    words: NDArray[np.uint64] = np.random.Philox(key=key).random_raw(num_words)
    return words


def philox_key(*, seed: int, purpose: str, epoch: int, name: str = "") -> np.uint64:
    """Return the key of what is drawn for each example by kernels.philox; the arguments are those of `philox_words`."""
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
    """Draw `num_values` float64 numbers from N(0, 1) by the transform of Box and Muller.

    Pairs (u, v) of uniforms become sqrt(-2 log(1-u)) · (cos 2πv, sin 2πv).

    Source: Box, Muller, "A note on the generation of random normal deviates", 1958.
    """
    words = philox_words(num_values + num_values % 2, seed=seed, purpose=purpose, epoch=epoch, name=name)
    return normals_of_words(words)[:num_values]


def normals_of_words(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Make as many numbers from N(0, 1) of an even number of uniform words; see `standard_normals`."""
    pairs = _uniforms_of_words(words).reshape(-1, 2)
    radius = np.sqrt(-2.0 * np.log1p(-pairs[:, 0]))
    angle = 2.0 * np.pi * pairs[:, 1]
    return np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=1).reshape(-1)


def permutation(num_items: int, *, seed: int, purpose: str, epoch: int = 0) -> NDArray[np.int64]:
    """Return 0 … num_items-1 in the order of one random word each (of equal words, the earlier)."""
    words = philox_words(num_items, seed=seed, purpose=purpose, epoch=epoch)
    order: NDArray[np.int64] = np.argsort(words, kind="stable")
    return order
