from __future__ import annotations

import numpy as np
import pytest

from partrain.data.folds import folds_of
from partrain.errors import ConfigError

LABELS = np.random.default_rng(0).integers(0, 3, 500)
NAMES = ("a", "b", "c")


@pytest.mark.parametrize("num_folds", [2, 5, 7])
def test_each_class_is_spread_evenly(num_folds: int) -> None:
    folds = folds_of(LABELS, num_folds, 0, NAMES)
    assert set(folds.tolist()) == set(range(1, num_folds + 1))
    for label in range(3):
        counts = np.bincount(folds[label == LABELS], minlength=num_folds + 1)[1:]
        assert counts.max() - counts.min() <= 1


def test_further_examples_at_the_end_move_no_other() -> None:
    whole = folds_of(LABELS, 5, 3, NAMES)
    assert all((folds_of(LABELS[:num], 5, 3, NAMES) == whole[:num]).all() for num in range(60, 500, 17))


def test_the_seed_decides_which_examples_are_together() -> None:
    assert (folds_of(LABELS, 5, 0, NAMES) != folds_of(LABELS, 5, 1, NAMES)).mean() > 0.5


def test_a_class_with_fewer_examples_than_folds_is_refused() -> None:
    with pytest.raises(ConfigError, match="class c has 4 for training and validation together"):
        folds_of(np.array([0] * 9 + [2] * 4), 5, 0, NAMES)
