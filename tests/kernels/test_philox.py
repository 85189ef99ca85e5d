from __future__ import annotations

import numpy as np
import pytest

from partrain.kernels.compiler.loading import load
from partrain.kernels.philox import philox

ONES = 2**32 - 1
# Random123's kat_vectors, philox4x32 with 10 rounds: counter, key, result (the words of pi in the third).
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES, ONES, ONES, ONES), (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
# Multipliers, and steps of the key, by the words' bits.
CONSTANTS = {
    32: ((0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85)),
    64: ((0xD2E7470EE14C6C93, 0xCA5A826395121157), (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)),
}


@pytest.fixture(autouse=True, scope="module")
def _loaded_kernel():
    load([philox], "float32")


def philox_by_the_paper(counter, key, bits):
    """Compute a block with Python's numbers, for words of 32 or 64 bits."""
    (m0, m1), steps = CONSTANTS[bits]
    x0, x1, x2, x3 = counter
    for _ in range(10):
        high_0, low_0 = divmod(m0 * x0, 2**bits)
        high_1, low_1 = divmod(m1 * x2, 2**bits)
        x0, x1, x2, x3 = high_1 ^ x1 ^ key[0], low_1, high_0 ^ x3 ^ key[1], low_0
        key = [(k + step) % 2**bits for k, step in zip(key, steps, strict=True)]
    return [x0, x1, x2, x3]


def blocks(counters, key):
    words_4B = np.array(counters, np.uint32).T.copy()
    philox(np.uint64(key[0] + (key[1] << 32)), words_4B)
    return words_4B.T.tolist()


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_the_kernel_gives_the_published_vectors(counter, key, expected):
    assert blocks([counter], key) == [list(expected)]


def test_the_formula_with_words_of_64_bits_is_numpys_generator():
    rng = np.random.default_rng(0)
    for _ in range(20):
        counter, key = (rng.integers(0, 2**64, n, np.uint64).tolist() for n in (4, 2))
        # NumPy adds 1 to the counter before each block.
        before = (sum(word << (64 * place) for place, word in enumerate(counter)) - 1) % 2**256
        words = np.random.Philox(key=key[0] + (key[1] << 64), counter=before).random_raw(4)
        assert philox_by_the_paper(counter, key, 64) == words.tolist()


@pytest.mark.parametrize("num_blocks", [1, 2, 7, 64, 131])
def test_any_number_of_blocks_are_those_of_the_formula_with_words_of_32_bits(num_blocks):
    rng = np.random.default_rng(num_blocks)
    counters, key = rng.integers(0, 2**32, (num_blocks, 4)).tolist(), rng.integers(0, 2**32, 2).tolist()
    assert blocks(counters, key) == [philox_by_the_paper(counter, key, 32) for counter in counters]
