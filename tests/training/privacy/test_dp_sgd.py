from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from partrain.kernels.chacha20 import chacha20
from partrain.kernels.compiler.loading import load
from partrain.kernels.gaussian_noise import add_gaussian_noise
from partrain.kernels.randomness import normals_of_words, philox_words
from partrain.parallel.update.piece_plan import useful_noise_threads
from partrain.parallel.update.thread_team import PieceThreads
from partrain.training.privacy.dp_sgd import NOISE_PIECE, GaussianNoise
from partrain.training.privacy.random_source import RandomSource, SecureSource, SeededSource

MakeNoise = Callable[[RandomSource, int], GaussianNoise]


@pytest.fixture(scope="module", autouse=True)
def _loaded_kernels() -> None:
    load([add_gaussian_noise, chacha20], "float32")
    load([add_gaussian_noise], "float64")


@pytest.fixture
def make_noise() -> Iterator[MakeNoise]:
    """Return a function that makes noise of deviation 0.5, drawn by a number of threads."""
    made: list[PieceThreads] = []

    def make(source: RandomSource, number: int) -> GaussianNoise:
        made.append(PieceThreads(number))
        return GaussianNoise(0.5, source, made[-1])

    yield make
    for threads in made:
        threads.close()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [1, 7, NOISE_PIECE, 3 * NOISE_PIECE + 1, 3 * NOISE_PIECE + 10])
def test_seeded_noise_is_that_of_the_words_of_its_step_with_any_number_of_threads(
    make_noise: MakeNoise, size: int, dtype: str
) -> None:
    numbers = np.random.default_rng(0).standard_normal(size).astype(dtype)
    before = numbers.copy()
    words = philox_words(size + size % 2, seed=3, purpose="private noise", epoch=9)
    expected = (numbers + 0.5 * normals_of_words(words)[:size]).astype(dtype)
    for number in (1, 2, 3):
        noisy = make_noise(SeededSource(3), number)(numbers, 9)
        assert noisy.dtype == dtype
        assert noisy.tobytes() == expected.tobytes()
    np.testing.assert_array_equal(numbers, before)


@pytest.mark.parametrize("number", [1, 2])
def test_secret_noise_is_normal_and_comes_again_in_no_piece_and_no_step(make_noise: MakeNoise, number: int) -> None:
    add, zeros = make_noise(SecureSource(), number), np.zeros(4 * NOISE_PIECE)
    noise = np.concatenate([add(zeros, 1), add(zeros, 1)]) / 0.5
    assert len(np.unique(noise)) > 0.999 * len(noise)
    # Six deviations: one run in a hundred million is outside.
    error = 1 / np.sqrt(noise.size)
    assert abs(noise.mean()) < 6 * error
    assert abs((noise**2).mean() - 1) < 6 * np.sqrt(2) * error
    pieces = noise.reshape(-1, NOISE_PIECE)
    products = pieces @ pieces.T / NOISE_PIECE
    assert abs(products - np.diag(np.diag(products))).max() < 6 / np.sqrt(NOISE_PIECE)


def test_only_large_networks_draw_noise_with_threads() -> None:
    assert useful_noise_threads(9_000, 8) == 1
    assert useful_noise_threads(105_634, 2) == 2
    assert useful_noise_threads(10**7, 64) == 8
    assert useful_noise_threads(10**7, 1) == 1
