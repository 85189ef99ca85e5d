"""Float images whose standard deviation has no finite inverse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from partrain.config.reader import parse_config
from partrain.data.arrays import dataset_of_arrays
from partrain.errors import DataError
from partrain.training.plan import TrainingPlan, plan_training


def plan_with_pixels_up_to(largest: float, **training: Any) -> TrainingPlan:
    images = (np.random.default_rng(0).random((60, 2, 6, 6)) * [[[1.0]], [[largest]]]).astype(np.float32)
    named = {
        f"{split}_{kind}": (f"{split}_{kind}", array)
        for split in ("train", "test")
        for kind, array in (("images", images), ("labels", np.arange(60) % 3))
    }
    network = ["flatten", {"dense": {"units": 3}}]
    mapping = {"data": {"name": "memory"}, "network": network, "training": {"epochs": 1} | training}
    dataset = dataset_of_arrays("memory", "images of a test", named)
    return plan_training(parse_config(mapping, source="test"), say=pytest.fail, warn=pytest.fail, dataset=dataset)


@pytest.mark.parametrize("largest", [2e-39, 1e-44])
def test_pixels_too_small_for_their_normalisation_are_the_images_fault(largest: float) -> None:
    with pytest.raises(DataError, match=r"images of a test: the pixels of channel 1 are too small .* multiply the"):
        plan_with_pixels_up_to(largest)


def test_small_pixels_are_no_error_where_the_inverse_is_finite() -> None:
    assert plan_with_pixels_up_to(1e-36).normalisation.std[1] < 1e-36
    assert plan_with_pixels_up_to(2e-39, dtype="float64", kernels="loops").normalisation.std[1] < 1e-39
    assert plan_with_pixels_up_to(0).normalisation.std[1] == 1
