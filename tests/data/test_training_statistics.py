from __future__ import annotations

import functools
import itertools
import math
import operator

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


@pytest.mark.parametrize("pixel_type", [np.uint8, np.float32])
def test_sums_have_one_order(pixel_type):
    """There is a chain of sums for each place in a block of images; the chains are added exactly."""
    C, H, W = 2, 3, 2
    images = np.random.default_rng(0).uniform(0, 200, (9000, C, H, W)).astype(pixel_type)
    block, count = 2**16 // (C * H * W), 9000 * H * W

    def total(channel, function):
        values = function(images[:, channel].astype(np.float64))
        places = itertools.product(range(block), range(H), range(W))
        # Not `sum`, which corrects rounding errors from Python 3.12 on.
        return math.fsum(functools.reduce(operator.add, values[n::block, h, w].tolist()) for n, h, w in places) / count

    result = measure_normalisation(images)
    mean = tuple(total(channel, lambda x: x) for channel in range(C))
    squares = [total(channel, lambda x, c=channel: (x - mean[c]) * (x - mean[c])) for channel in range(C)]
    assert (result.mean, result.std) == (mean, tuple(math.sqrt(square) for square in squares))
    for in_memory in (np.asfortranarray(images), images.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)):
        assert vars(measure_normalisation(in_memory)) == vars(result)


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
