"""Shapes: N examples; C, H, W channels, rows, columns."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from partrain.kernels.compiler.loading import load
from partrain.kernels.pixel_changes import change_pixels
from tests.kernels.test_philox import philox_by_the_paper

KEY = np.uint64(0x0123456789ABCDEF)
SHAPES = pytest.mark.parametrize("shape_CHW", [(1, 28, 28), (3, 17, 40), (2, 5, 3), (1, 1, 1), (4, 1, 9)])
NOTHING = {
    "flips": (False, False),
    "padding": (0, 0),
    "jitter": (0.0, 0.0),
    "limits": (0.0, 255.0),
    "probability": 0.0,
    "area": (0.02, 0.33),
    "aspect": (0.3, 3.3),
}
ALL = {"flips": (True, True), "padding": (2, 3), "jitter": (0.4, 0.7), "probability": 0.7}
FREE = (-np.inf, np.inf)


@pytest.fixture(autouse=True, scope="module")
def _loaded_kernel():
    load([change_pixels], "float32")


def noise(shape_CHW, num_images=40, pixel_type="uint8"):
    images = np.random.default_rng(0).integers(0, 256, (num_images, *shape_CHW)).astype(pixel_type)
    return images if pixel_type == "uint8" else images - np.float32(99.5)


def fill_of(num_channels):
    return np.arange(num_channels, dtype=np.float32) - np.float32(1000.5)


def changed(images, examples=None, *, key=KEY, **settings):
    examples = np.arange(len(images)) if examples is None else np.array(examples, np.int64)
    settings = NOTHING | settings
    settings["aspect"] = tuple(np.log(settings["aspect"]).tolist())
    result = np.full((len(examples), *images.shape[1:]), np.nan, np.float32)
    places = examples % len(images)
    change_pixels(images, places, examples, key, *settings.values(), fill_of(images.shape[1]), result)
    return result


def words_of(example):
    blocks = [philox_by_the_paper((block, 0, example, 0), (0x89ABCDEF, 0x01234567), 32) for block in range(12)]
    return np.array(blocks, np.uint64).T.reshape(-1).tolist()


def box_of(words, area, aspect, H, W):
    for k in range(8, 48, 4):
        u, v = ((word + 0.5) / 2**32 for word in words[k : k + 2])
        pixels = (area[0] + (area[1] - area[0]) * u) * H * W
        ratio = aspect[0] * (aspect[1] / aspect[0]) ** v
        rows, columns = round(np.sqrt(pixels * ratio)), round(np.sqrt(pixels / ratio))
        if 1 <= rows <= H and 1 <= columns <= W:
            top, left = words[k + 2] * (H - rows + 1) >> 32, words[k + 3] * (W - columns + 1) >> 32
            return slice(top, top + rows), slice(left, left + columns)
    return slice(0, 0), slice(0, 0)


def by_numpy(image_CHW, example, flips, padding, jitter, limits, probability, area, aspect):
    """Change an image in float64, one change after the other."""
    words, (C, H, W) = words_of(example), image_CHW.shape
    padded = np.pad(image_CHW.astype(np.float64), ((0, 0), (padding[0],) * 2, (padding[1],) * 2))
    i, j = words[2] * (2 * padding[0] + 1) >> 32, words[3] * (2 * padding[1] + 1) >> 32
    x = padded[:, i : i + H, j : j + W]
    x = x[:, ::-1] if flips[0] and words[0] < 2**31 else x
    x = x[:, :, ::-1] if flips[1] and words[1] < 2**31 else x
    brightness, contrast = (1 + b * ((word + 0.5) / 2**31 - 1) for b, word in zip(jitter, words[4:6], strict=True))
    x = np.clip(brightness * x, *limits)
    mean = np.tensordot([0.299, 0.587, 0.114], x, 1).mean() if C == 3 else x.mean()
    x = np.clip(contrast * x + (1 - contrast) * mean, *limits)
    if (words[6] + 0.5) / 2**32 < probability:
        x[:, *box_of(words, area, aspect, H, W)] = fill_of(C)[:, None, None]
    return x


@SHAPES
@pytest.mark.parametrize("pixel_type", ["uint8", "float32"])
@pytest.mark.parametrize(
    "settings",
    [
        {"flips": (True, False)},
        {"flips": (False, True), "padding": (9, 30)},
        {"padding": (4, 1)},
        {"jitter": (1.0, 0.0)},
        {"jitter": (0.0, 1.0)},
        {"probability": 1.0, "area": (0.3, 0.9), "aspect": (0.05, 20.0)},
        ALL,
    ],
    ids=["rows", "columns and crop", "crop", "brightness", "contrast", "erase", "all"],
)
def test_changes_are_those_of_numpy(shape_CHW, pixel_type, settings):
    images = noise(shape_CHW, pixel_type=pixel_type)
    settings = NOTHING | {"limits": (0.0, 255.0) if pixel_type == "uint8" else FREE} | settings
    actual = changed(images, **settings)
    for example, image_CHW in enumerate(images):
        np.testing.assert_allclose(actual[example], by_numpy(image_CHW, example, **settings), rtol=1e-6, atol=1e-4)


@SHAPES
@pytest.mark.parametrize("pixel_type", ["uint8", "float32"])
def test_without_settings_every_bit_stays(shape_CHW, pixel_type):
    images = noise(shape_CHW, pixel_type=pixel_type)
    assert np.array_equal(changed(images), images)


def test_an_image_is_a_function_of_pixels_key_and_example_alone():
    images = noise((2, 9, 8))
    together = changed(images, [4, 1, 3], **ALL)
    assert np.array_equal(changed(images, [1], **ALL)[0], together[1])
    assert not np.array_equal(changed(images, [41], **ALL)[0], together[1])
    assert not np.array_equal(changed(images, [1], key=np.uint64(5), **ALL)[0], together[1])


def test_each_direction_is_flipped_in_half_of_the_images():
    image = noise((1, 2, 2), 1)
    flipped = changed(image, range(20_000), flips=(True, True))[:, 0]
    kinds = [image[0, 0, ::a, ::b] for a in (1, -1) for b in (1, -1)]
    shares = [(flipped == kind).all(axis=(1, 2)).mean() for kind in kinds]
    np.testing.assert_allclose(shares, 0.25, atol=0.015)


def test_crops_begin_at_every_place_equally_often():
    image = np.zeros((1, 1, 15, 15), np.uint8)
    image[0, 0, 7, 7] = 1
    moved = changed(image, range(20_000), padding=(2, 3))[:, 0]
    frequencies = moved.mean(axis=0)[5:10, 4:11]
    assert frequencies.sum() == pytest.approx(1)
    np.testing.assert_allclose(frequencies, 1 / 35, rtol=0.25)


def test_factors_are_uniform_in_their_bounds():
    image = np.full((1, 1, 2, 1), 100.0, np.float32)
    brightness = changed(image, range(20_000), jitter=(0.3, 0.0), limits=FREE)[:, 0, 0, 0] / 100
    assert stats.kstest(brightness, stats.uniform(0.7, 0.6).cdf).pvalue > 0.01
    image[0, 0, 1] = 200
    dark, light = changed(image, range(20_000), jitter=(0.0, 0.5), limits=FREE)[:, 0, :, 0].T
    np.testing.assert_allclose(dark + light, 300, rtol=1e-5)
    assert stats.kstest((light - dark) / 100, stats.uniform(0.5, 1.0).cdf).pvalue > 0.01


def test_erased_boxes_have_the_area_and_the_aspect_of_the_settings():
    settings = {"probability": 0.4, "area": (0.05, 0.4), "aspect": (0.5, 2.0)}
    erased = changed(np.zeros((1, 1, 100, 80), np.uint8), range(5_000), **settings)[:, 0] < 0
    rows, columns = erased.any(axis=2).sum(axis=1), erased.any(axis=1).sum(axis=1)
    assert np.array_equal(rows * columns, erased.sum(axis=(1, 2)))  # boxes
    has_box = rows > 0
    assert has_box.mean() == pytest.approx(0.4, abs=0.03)
    area, aspect = (rows * columns)[has_box] / 8000, rows[has_box] / columns[has_box]
    assert stats.kstest(area, stats.uniform(0.05, 0.35).cdf).statistic < 0.05
    assert stats.kstest(aspect, stats.loguniform(0.5, 2.0).cdf).statistic < 0.05
    # The middle is covered most often, and the quarters equally often.
    frequencies = erased.mean(axis=0)
    assert frequencies[50, 40] > 3 * frequencies[5, 5]
    quarters = [frequencies[:50, :40], frequencies[:50, 40:], frequencies[50:, :40], frequencies[50:, 40:]]
    np.testing.assert_allclose([quarter.mean() for quarter in quarters], frequencies.mean(), rtol=0.1)
