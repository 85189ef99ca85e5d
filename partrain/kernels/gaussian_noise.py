"""Adds Gaussian noise to a vector: `randomness.normals_of_words` for the noise of each step of a private training.

NumPy reads and writes memory in each of some fifty operations: 57 ns a number. This takes 6.

Shapes: K numbers; W random words.
"""

from __future__ import annotations

import numpy as np

from partrain.kernels.compiler.flags import kernel
from partrain.kernels.elementary_inlined import cos_sin_pi, log

# Pairs of normals that are computed at once: their arrays fit into the first-level cache.
PIECE_PAIRS = 256


@kernel("void(uint64[::1], float64, {float}[::1], {float}[::1])")
def add_gaussian_noise(words_W, deviation, numbers_K, noisy_K):
    """noisy[k] = numbers[k] + deviation · normal[k], in float64, and rounded once.

    Parameters
    ----------
    words_W : K random words, or K + 1 if K is odd; read. The normals are those of `randomness.normals_of_words`.
    deviation : the standard deviation of the noise.
    numbers_K : read.
    noisy_K : overwritten.
    """
    K, num_pairs = numbers_K.size, words_W.size // 2
    us, vs = np.empty(PIECE_PAIRS), np.empty(PIECE_PAIRS)  # uniforms, and then the two normals of each pair
    for first in range(0, num_pairs, PIECE_PAIRS):
        size = min(PIECE_PAIRS, num_pairs - first)
        for p in range(size):
            us[p] = np.float64(np.int64(words_W[2 * (first + p)] >> np.uint64(11))) * 2.0**-53
            vs[p] = np.float64(np.int64(words_W[2 * (first + p) + 1] >> np.uint64(11))) * 2.0**-53
        for p in range(size):
            radius = np.sqrt(-2.0 * log(1.0 - us[p]))
            cosine, sine = cos_sin_pi(2.0 * vs[p])
            us[p], vs[p] = radius * cosine, radius * sine
        for p in range(min(size, K // 2 - first)):
            k = 2 * (first + p)
            noisy_K[k] = np.float64(numbers_K[k]) + deviation * us[p]
            noisy_K[k + 1] = np.float64(numbers_K[k + 1]) + deviation * vs[p]
        if first + size > K // 2:  # the last pair of an odd number
            noisy_K[K - 1] = np.float64(numbers_K[K - 1]) + deviation * us[size - 1]
