from __future__ import annotations

import numpy as np
import pytest

from partrain.config.schema.augmentation import Cutmix, Mixup, mixing_probabilities
from partrain.data.mixing import Mixing
from partrain.kernels.compiler.loading import load


@pytest.mark.parametrize(
    ("mixup", "cutmix", "expected"),
    [
        (None, None, (0, 0)),
        (Mixup(alpha=1.0), None, (1, 0)),
        (None, Cutmix(alpha=1.0), (0, 1)),
        (None, Cutmix(alpha=1.0, probability=0.25), (0, 0.25)),
        (Mixup(alpha=1.0), Cutmix(alpha=1.0), (0.5, 0.5)),
        (Mixup(alpha=1.0, probability=0.25), Cutmix(alpha=1.0), (0.25, 0.75)),
        (Mixup(alpha=1.0), Cutmix(alpha=1.0, probability=0.125), (0.875, 0.125)),
        (Mixup(alpha=1.0, probability=0.25), Cutmix(alpha=1.0, probability=0.125), (0.25, 0.125)),
    ],
)
def test_a_method_without_a_probability_has_what_the_other_leaves(mixup, cutmix, expected):
    assert mixing_probabilities(mixup, cutmix) == expected


def test_draw_is_a_function_of_seed_epoch_and_example():
    load(Mixing.KERNELS, "float32")

    def drawn(examples: list[int], seed: int = 0, epoch: int = 0) -> list[list[float]]:
        mixing = Mixing(Mixup(alpha=0.5), Cutmix(alpha=1.0), seed=seed, num_train=100, image_shape=(1, 9, 8))
        return [rows.tolist() for rows in mixing.draw(np.array(examples), epoch)]

    first = drawn([5, 2, 7])
    assert [rows[::-1] for rows in drawn([7, 2, 5])] == first
    for other in (drawn([5, 2, 7], seed=1), drawn([5, 2, 7], epoch=1)):
        assert all(a != b for a, b in zip(first[:2], other[:2], strict=True))
