"""Philox4x32-10: random words as a pure function of a key and a counter, for the random numbers of each example.

Creating a NumPy generator takes 10 µs, a third of the time of an example in a small network. Words have 32 bits, where
NumPy's Philox has 64: the product of two words fits 64 bits, so a round is computed in vectors (measured: 1 ns a word;
8 ns in scalars, block after block). Dropout masks and shifts in pixels need no more bits.

The key identifies seed, purpose and epoch (randomness.philox_key). The counter is the number of the block, 0, and the
lower and upper half of the example's index in the training set.

Shapes: B blocks of 4 words.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 3.3.
"""

from __future__ import annotations

import numpy as np

from partrain.kernels.compiler.flags import inlined, kernel

NUM_ROUNDS = 10
# The multipliers, and the increments of the key in each round (the golden ratio, and sqrt(3) - 1).
_MULTIPLIER_0, _MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_STEP_0, _STEP_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)


@kernel("void(uint64, uint32[:,::1])")
def philox(key, words_4B):
    """Turn counters into random words, in place.

    One round, with (high, low) the halves of a 64-bit product, and (k0, k1) the low and the high half of the key:

        (x0, x1, x2, x3) becomes (high(M1·x2) ^ x1 ^ k0, low(M1·x2), high(M0·x0) ^ x3 ^ k1, low(M0·x0))

    Parameters
    ----------
    key : 64 bits.
    words_4B : each column a counter; overwritten with its four words.
    """
    key_0, key_1 = key & _LOW, key >> _HALF
    for _ in range(NUM_ROUNDS):
        k0, k1 = np.uint32(key_0), np.uint32(key_1)
        for b in range(words_4B.shape[1]):
            product_0 = _MULTIPLIER_0 * np.uint64(words_4B[0, b])
            product_1 = _MULTIPLIER_1 * np.uint64(words_4B[2, b])
            words_4B[0, b] = np.uint32(product_1 >> _HALF) ^ words_4B[1, b] ^ k0
            words_4B[1, b] = np.uint32(product_1)
            words_4B[2, b] = np.uint32(product_0 >> _HALF) ^ words_4B[3, b] ^ k1
            words_4B[3, b] = np.uint32(product_0)
        key_0, key_1 = (key_0 + _STEP_0) & _LOW, (key_1 + _STEP_1) & _LOW


@inlined
def draw_words(key, example, words_4B):
    """Write an example's words: column b is block b."""
    whose = np.uint64(example)
    lower, upper = np.uint32(whose & _LOW), np.uint32(whose >> _HALF)
    for b in range(words_4B.shape[1]):
        words_4B[0, b] = b
        words_4B[1, b] = 0
        words_4B[2, b] = lower
        words_4B[3, b] = upper
    philox(key, words_4B)


@inlined
def signed_uniform(word):
    """Return a number in (-1, 1), evenly distributed: (word + 1/2) / 2**31 - 1, in float64."""
    return (np.float64(word) + 0.5) * 2.0**-31 - 1.0


@inlined
def uniform(word):
    """Return a number in (0, 1), evenly distributed: (word + 1/2) / 2**32, in float64."""
    return (np.float64(word) + 0.5) * 2.0**-32


@inlined
def below(word, count):
    """Return a whole number of 0 … count-1, evenly distributed up to a fraction of count / 2**32."""
    return np.int64((np.uint64(word) * np.uint64(count)) >> _HALF)
