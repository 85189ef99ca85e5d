from __future__ import annotations

import numpy as np
import pytest

from partrain.data.label_noise import flip_labels, flipped_examples
from partrain.errors import ConfigError

LABELS = np.arange(1000) % 10


def test_share_of_the_examples_gets_another_class_and_no_other_label_changes() -> None:
    noisy = flip_labels(LABELS, 0.02, 10, seed=3)
    changed = np.flatnonzero(noisy != LABELS)
    np.testing.assert_array_equal(changed, flipped_examples(1000, 0.02, 3))
    assert len(changed) == 20
    assert noisy.min() >= 0
    assert noisy.max() < 10


def test_wrong_labels_are_any_other_class() -> None:
    labels = np.full(20_000, 4)
    noisy = flip_labels(labels, 0.5, 10, seed=0)
    counts = np.bincount(noisy[noisy != 4], minlength=10)
    assert counts[4] == 0
    assert np.delete(counts, 4).min() > 0.9 * 10_000 / 9


def test_flips_are_a_function_of_the_seed_alone() -> None:
    again = flip_labels(LABELS, 0.1, 10, seed=1)
    np.testing.assert_array_equal(flip_labels(LABELS, 0.1, 10, seed=1), again)
    assert (flip_labels(LABELS, 0.1, 10, seed=2) != again).any()


def test_one_class_leaves_no_wrong_label() -> None:
    with pytest.raises(ConfigError, match="only one"):
        flip_labels(np.zeros(4, np.int64), 0.5, 1, seed=0)
