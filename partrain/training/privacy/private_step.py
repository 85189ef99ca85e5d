"""Steps that hide every single example: DP-SGD.

Each example is in a batch with the same small probability, independently of all others; its gradient is clipped; the
sum gets Gaussian noise, and is divided by the *expected* size of a batch, for the real one is itself a secret. Whatever
the optimizer makes of that sum gives away no more than the sum. An empty batch is a step of noise alone.

The noise is made of random words by the transform of Box and Muller, in float64, added in float64, and rounded once.
Floating-point numbers have gaps, by which an attacker who sees the sums exactly could tell more than epsilon says
(Mironov, "On significance of the least significant bits for differential privacy", CCS 2012). Here sums are seen only
through many rounded steps of the optimizer; a proof against such attacks is not claimed. The tails end at 8.6
deviations, and the norm of a clipped gradient is `clip` up to the rounding of float32.

Source: Abadi et al., "Deep learning with differential privacy", arXiv 1607.00133, algorithm 1.

Shapes: N examples of a batch; L layers with parameters; K parameters.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from partrain.config.schema.training import Training
from partrain.kernels.randomness import normals_of_words, philox_words
from partrain.parallel.update.parameter_update import NotFinite, ParameterUpdate
from partrain.parallel.workers.commands import Command
from partrain.parallel.workers.compute_group import ComputeGroup

Array = NDArray[Any]
Words = NDArray[np.uint64]


class RandomSource(Protocol):
    """Where words come from that are uniform over all 64-bit integers."""

    def words(self, num_words: int, *, purpose: str, step: int) -> Words:
        """Return words for a purpose in a step."""


class SecureSource:
    """The system's cryptographically secure generator: never the same words again, not even after a resume."""

    def words(self, num_words: int, *, purpose: str, step: int) -> Words:
        """See `RandomSource`."""
        return np.frombuffer(os.urandom(8 * num_words), np.uint64)


class SeededSource:
    """Words that are a function of the seed: for tests. Who knows the seed can subtract the noise."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def words(self, num_words: int, *, purpose: str, step: int) -> Words:
        """See `RandomSource`."""
        return philox_words(num_words, seed=self._seed, purpose=purpose, epoch=step)


def sample_batch(num_examples: int, batch_size: int, words_N: Words) -> NDArray[np.int64]:
    """Return the examples that are in a batch, in ascending order, each with probability batch_size / num_examples.

    In whole numbers: the probability is rounded down to a multiple of 2**-64.
    """
    threshold = batch_size * 2**64 // num_examples
    if threshold >= 2**64:
        return np.arange(num_examples)
    chosen: NDArray[np.int64] = np.flatnonzero(words_N < np.uint64(threshold))
    return chosen


# Without eq: comparing arrays gives arrays, so a generated == would only raise.
@dataclass(frozen=True, eq=False)
class PrivateBatch:
    """What came of a step's batch, before the noise: none of it is private.

    Attributes
    ----------
    losses_N, correct_N : of each example its loss, and whether it was classified rightly.
    squared_norms_NL : of each example's gradient, before clipping, by layer.
    squared_norm_of_sum : of the sum of the clipped gradients.
    not_finite : what is not finite after the step, or None.
    """

    losses_N: Array
    correct_N: Array
    squared_norms_NL: Array
    squared_norm_of_sum: float
    not_finite: NotFinite | None

    @property
    def loss(self) -> float:
        """The mean loss; NaN of an empty batch."""
        return float(self.losses_N.mean()) if len(self.losses_N) else math.nan


class PrivateTraining:
    """Makes private steps.

    Parameters
    ----------
    training : the configuration, resolved; with `privacy`.
    seed : of the configuration; used where the source is seeded.
    num_train : examples for training.
    group, arrays : who computes, and the shared arrays.
    update : makes steps from sums.
    """

    def __init__(
        self,
        training: Training,
        seed: int,
        num_train: int,
        group: ComputeGroup,
        arrays: Mapping[str, Array],
        update: ParameterUpdate,
    ) -> None:
        privacy, clip = training.privacy, training.per_example.clip
        assert privacy is not None
        assert privacy.noise_multiplier is not None
        assert clip is not None
        self._source: RandomSource = SeededSource(seed) if privacy.source == "seeded" else SecureSource()
        self._deviation = privacy.noise_multiplier * clip
        self._batch_size, self._num_train = training.batch_size, num_train
        self._group, self._arrays, self._update = group, arrays, update
        self._gradient_sum = np.zeros_like(arrays["parameters"])

    def make_step(self, step: int, cut: Callable[[int], Sequence[Command]]) -> PrivateBatch:
        """Make step `step` (counted from 1); `cut` returns the commands for so many examples, which clip."""
        words_N = self._source.words(self._num_train, purpose="private sampling", step=step)
        indices_N = sample_batch(self._num_train, self._batch_size, words_N)
        arrays, total = self._arrays, self._gradient_sum
        capacity = len(arrays["indices"])
        total[:] = 0
        losses, correct, norms = [], [], []
        for first in range(0, len(indices_N), capacity):
            part = indices_N[first : first + capacity]
            n = len(part)
            arrays["indices"][:n] = part
            self._group.run(cut(n))
            total += self._update.gradient_sum(n)
            losses.append(arrays["losses"][:n].copy())
            correct.append(arrays["predictions"][:n] == arrays["train.labels"][part])
            norms.append(arrays["squared_norms"][:n].copy())
        squared_norm_of_sum = self._update.squared_norm_of(total)
        words = self._source.words(total.size + total.size % 2, purpose="private noise", step=step)
        total[:] = total + self._deviation * normals_of_words(words)[: total.size]
        return PrivateBatch(
            np.concatenate([np.empty(0), *losses]),
            np.concatenate([np.empty(0, bool), *correct]),
            np.concatenate([np.empty((0, arrays["squared_norms"].shape[1])), *norms]),
            squared_norm_of_sum,
            self._update.apply_sum(total, self._batch_size, step),
        )
