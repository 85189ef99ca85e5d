from __future__ import annotations

import numpy as np
import pytest

from partrain.data.training_statistics import class_weights, measure_normalisation


def assert_normalisation(images, **tolerance):
    result = measure_normalisation(images)
    pixels = images.astype(np.float64)
    np.testing.assert_allclose(result.mean, pixels.mean(axis=(0, 2, 3)), **tolerance)
    np.testing.assert_allclose(result.std, pixels.std(axis=(0, 2, 3)), **tolerance)


@pytest.mark.parametrize("num_channels", [1, 3])
@pytest.mark.parametrize("num_images", [1, 9, 4096, 4097, 9000])  # fewer than a piece, one, and several
def test_normalisation_of_bytes_is_that_of_numpy(num_channels, num_images):
    rng = np.random.default_rng(0)
    images = rng.integers(0, [[[64]], [[256]], [[9]]][:num_channels], (num_images, num_channels, 3, 5), np.uint8)
    assert_normalisation(images, rtol=1e-12)


def test_normalisation_of_float32_is_that_of_numpy():
    images = np.random.default_rng(0).normal([[[0]], [[1000]]], [[[1e-3]], [[1]]], (5000, 2, 3, 3))
    assert_normalisation(images.astype(np.float32), rtol=1e-9, atol=1e-12)


def test_white_images_do_not_overflow():
    result = measure_normalisation(np.full((5000, 1, 28, 28), 255, np.uint8))
    assert (result.mean, result.std) == ((255.0,), (1.0,))


def test_a_channel_that_is_the_same_everywhere_gets_a_deviation_of_1():
    images = np.random.default_rng(0).random((5000, 3, 3, 3), np.float32)
    images[:, 1] = 0.1
    images[:, 2] = 0
    result = measure_normalisation(images)
    assert result.std[1:] == (1.0, 1.0)
    assert result.mean[1:] == (float(np.float32(0.1)), 0.0)
    assert result.std[0] == pytest.approx(np.sqrt(1 / 12), rel=0.01)


def test_normalisation_does_not_change_the_images():
    images = np.random.default_rng(0).integers(0, 256, (10, 1, 4, 4), np.uint8)
    before = images.copy()
    measure_normalisation(images)
    assert np.array_equal(images, before)


def test_the_normalisation_is_plain_numbers():
    result = measure_normalisation(np.zeros((3, 2, 4, 4), np.uint8))
    assert [type(value) for value in result.mean + result.std] == [float] * 4


def test_class_weights_are_those_that_scikit_learn_calls_balanced() -> None:
    assert class_weights(np.array([0, 0, 0, 1]), 2) == (4 / (2 * 3), 4 / (2 * 1))


def test_class_without_examples_has_no_weight_and_the_mean_weight_is_one() -> None:
    labels = np.array([0, 2, 2, 2, 3])
    weights = class_weights(labels, 5)
    assert weights[1] == weights[4] == 0
    assert np.array(weights)[labels].mean() == pytest.approx(1)
