"""The parts of a private step (DP-SGD): Poisson sampling and Gaussian noise.

Each example is in a batch with the same small probability, independently of all others. Its gradient is clipped.
Gaussian noise is added to the sum of the gradients, and the sum is divided by the expected batch size, because the
actual size is private. The optimizer sees only this noisy sum, so its result reveals no more than the sum does. A step
with an empty batch consists of noise alone.

The Box-Muller transform turns random words into noise, in float64. The noise is added in float64, and the result is
rounded once. Floating-point numbers have gaps: an attacker who sees the sums exactly could learn more than epsilon
allows (Mironov, "On significance of the least significant bits for differential privacy", CCS 2012). Here the sums are
visible only through many rounded steps of the optimizer; we do not claim a proof against such attacks. The tails of the
noise end at 8.6 standard deviations. The norm of a clipped gradient is at most `clip`, up to the rounding of float32.

Source: Abadi et al., "Deep learning with differential privacy", arXiv 1607.00133, algorithm 1.

Shapes: N examples of a batch; K parameters.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.kernels.gaussian_noise import add_gaussian_noise
from partrain.parallel.update.piece_plan import ranges
from partrain.parallel.update.thread_team import PieceThreads
from partrain.training.privacy.random_source import RandomSource, Words

Array = NDArray[Any]

# Numbers whose noise a thread draws at once, a multiple of 4 (`RandomSource.words`). They take less than 0.2 ms, so all
# threads end at about the same time.
NOISE_PIECE = 16384


def sample_batch(num_examples: int, batch_size: int, words_N: Words) -> NDArray[np.int64]:
    """Return a batch that contains each example with probability batch_size / num_examples, in ascending order.

    Integer arithmetic rounds the probability down to a multiple of 2**-64.
    """
    threshold = batch_size * 2**64 // num_examples
    if threshold >= 2**64:
        return np.arange(num_examples)
    chosen: NDArray[np.int64] = np.flatnonzero(words_N < np.uint64(threshold))
    return chosen


class PoissonBatches:
    """Samples each batch independently of the others; a batch may be empty.

    Parameters
    ----------
    num_train : the number of training examples.
    batch_size : the expected number of examples in a batch.
    source : the source of random words.
    """

    def __init__(self, num_train: int, batch_size: int, source: RandomSource) -> None:
        self._num_train, self._batch_size, self._source = num_train, batch_size, source

    def select(self, step: int) -> NDArray[Any]:
        """Return the indices (N,) of the examples in the batch of `step`."""
        words_N = self._source.words(self._num_train, purpose="private sampling", step=step)
        return sample_batch(self._num_train, self._batch_size, words_N)


class GaussianNoise:
    """Adds Gaussian noise to the sum of a batch's gradients; its kernel is in `parallel.required_kernels`.

    Parameters
    ----------
    standard_deviation : the standard deviation of the noise on each number.
    source : the source of random words.
    threads : draw and add the noise, piece by piece.
    """

    def __init__(self, standard_deviation: float, source: RandomSource, threads: PieceThreads) -> None:
        self._standard_deviation, self._source, self._threads = standard_deviation, source, threads

    def __call__(self, gradient_sum: Array, step: int) -> Array:
        """Return the sum (K,) with the noise of `step`, in the dtype of the sum."""
        noisy = np.empty_like(gradient_sum)

        def add(piece: tuple[int, int]) -> None:
            first, last = piece
            num_words = last - first + (last - first) % 2
            words = self._source.words(num_words, purpose="private noise", step=step, first=first)
            add_gaussian_noise(words, self._standard_deviation, gradient_sum[first:last], noisy[first:last])

        self._threads.run(list(ranges(gradient_sum.size, NOISE_PIECE)), add)
        return noisy
