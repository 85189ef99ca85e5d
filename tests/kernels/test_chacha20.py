from __future__ import annotations

import numpy as np
import pytest

from partrain.kernels.chacha20 import WIDTH, chacha20
from partrain.kernels.compiler.loading import load

# RFC 8439, appendix A.1, the vectors with a nonce of zeros: key, number of the block, its bytes.
KNOWN_ANSWERS = [
    (
        bytes(32),
        0,
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
        "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586",
    ),
    (
        bytes(32),
        1,
        "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
        "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f",
    ),
    (
        bytes([*[0] * 31, 1]),
        1,
        "3aeb5224ecf849929b9d828db1ced4dd832025e8018b8160b82284f3c949aa5a"
        "8eca00bbb4a73bdad192b5c42f73f2fd4e273644c8b36125a64addeb006c13a0",
    ),
    (
        bytes([0, 255, *[0] * 30]),
        2,
        "72d54dfbf12ec44b362692df94137f328fea8da73990265ec1bbbea1ae9af0ca"
        "13b25aa26cb4a648cb9b9d1be65b2c0924a66c54d545ec1b7374f4872e99f096",
    ),
]


@pytest.fixture(autouse=True, scope="module")
def _loaded_kernels():
    load([chacha20], "float32")


def block(words_G16W, number):
    return words_G16W[number // WIDTH, :, number % WIDTH].astype("<u4").tobytes()


def stream(key, num_groups):
    words_G16W = np.empty((num_groups, 16, WIDTH), np.uint32)
    chacha20(np.frombuffer(bytearray(key), "<u4").astype(np.uint32), words_G16W)
    return words_G16W


@pytest.mark.parametrize(("key", "number", "expected"), KNOWN_ANSWERS)
def test_the_kernel_gives_the_published_vectors(key, number, expected):
    assert block(stream(key, 1), number).hex() == expected


def rotated(word, bits):
    return (word << bits | word >> (32 - bits)) & 0xFFFFFFFF


def block_by_the_standard(key, number):
    """Return a block as RFC 8439 defines it, with whole numbers of Python."""
    start = [int.from_bytes(text, "little") for text in (b"expa", b"nd 3", b"2-by", b"te k")]
    start += [int.from_bytes(key[k : k + 4], "little") for k in range(0, 32, 4)] + [number, 0, 0, 0]
    words = list(start)
    columns = [(k, 4 + k, 8 + k, 12 + k) for k in range(4)]
    diagonals = [(0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)]
    for a, b, c, d in (*columns, *diagonals) * 10:
        for x, y, z, bits in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            words[x] = (words[x] + words[y]) & 0xFFFFFFFF
            words[z] = rotated(words[z] ^ words[x], bits)
    return b"".join(((x + y) & 0xFFFFFFFF).to_bytes(4, "little") for x, y in zip(words, start, strict=True))


def test_all_blocks_of_all_groups_are_those_of_the_standard():
    key = np.random.default_rng(0).bytes(32)
    words = stream(key, 3)
    for number in range(3 * WIDTH):
        assert block(words, number) == block_by_the_standard(key, number)
