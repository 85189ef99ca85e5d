from __future__ import annotations

import numpy as np
import pytest

from partrain.kernels.compiler.loading import load
from partrain.kernels.gaussian_noise import PIECE_PAIRS, add_gaussian_noise
from partrain.kernels.randomness import normals_of_words, philox_words

DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])


@pytest.fixture(autouse=True, scope="module")
def _loaded_kernels():
    for dtype in ("float32", "float64"):
        load([add_gaussian_noise], dtype)


def with_noise(numbers, words, deviation):
    noisy = np.full_like(numbers, np.nan)
    add_gaussian_noise(words, deviation, numbers, noisy)
    return noisy


@DTYPES
@pytest.mark.parametrize(
    "size", [0, 1, 2, 3, 2 * PIECE_PAIRS - 1, 2 * PIECE_PAIRS, 2 * PIECE_PAIRS + 1, 6 * PIECE_PAIRS + 77]
)
def test_noise_has_the_bits_of_the_normals_that_numpy_draws(dtype, size):
    words = philox_words(size + size % 2, seed=0, purpose="test")
    numbers = np.random.default_rng(size).standard_normal(size).astype(dtype)
    expected = (numbers + 0.37 * normals_of_words(words)[:size]).astype(dtype)
    assert with_noise(numbers, words, 0.37).tobytes() == expected.tobytes()


@DTYPES
def test_the_smallest_and_the_largest_words_give_finite_noise(dtype):
    words = np.array([0, 0, 2**64 - 1, 2**64 - 1, 0, 2**64 - 1, 2**64 - 1, 0], np.uint64)
    noise = with_noise(np.zeros(8, dtype), words, 1.0)
    assert np.array_equal(noise, normals_of_words(words).astype(dtype))
    assert np.isfinite(noise).all()


def test_numbers_that_are_not_finite_stay_so_and_spoil_no_others():
    numbers = np.array([1, np.nan, np.inf, 2, -np.inf], np.float32)
    noisy = with_noise(numbers, philox_words(6, seed=0, purpose="test"), 1.0)
    assert np.isfinite(noisy).tolist() == np.isfinite(numbers).tolist()
    assert noisy[2] == np.inf
    assert noisy[4] == -np.inf
