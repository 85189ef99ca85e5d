"""Shapes: N examples; C, H, W channels, rows, columns; A, B rows and columns of knots."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import interpolate, ndimage

from partrain.kernels.augmentation import augment, augment_by_formula
from partrain.kernels.compiler.loading import load
from tests.kernels.test_philox import philox_by_the_paper

KEY = np.uint64(0x0123456789ABCDEF)
BOTH = pytest.mark.parametrize("kernel", [augment, augment_by_formula], ids=lambda kernel: kernel.py_func.__name__)
# The third bound is an angle in multiples of pi.
NOTHING, NO_ELASTIC = (0.0, 0.0, 0.0, 0.0), (0.0, 1.0)
ALL, ELASTIC = (3.0, 2.0, 0.4 / np.pi, 0.2), (2.5, 5.5)
SHAPES = pytest.mark.parametrize("shape_CHW", [(1, 28, 28), (3, 17, 40), (2, 5, 3), (1, 1, 1), (1, 1, 9)])


@pytest.fixture(autouse=True, scope="module")
def _loaded_kernels():
    load([augment, augment_by_formula], "float32")


def noise(shape_CHW, num_images=6, pixel_type="uint8"):
    return np.random.default_rng(0).integers(0, 256, (num_images, *shape_CHW)).astype(pixel_type)


def smooth(shape_CHW, num_images=6):
    """Draw images whose pixels differ little from their neighbours', so that a place off by rounding is forgiven."""
    images = np.random.default_rng(0).uniform(0, 255, (num_images, *shape_CHW))
    return ndimage.gaussian_filter(images, (0, 0, 1, 1)).astype(np.float32)


def augmented(kernel, images, bounds, elastic, examples=None, key=KEY):
    examples = np.arange(len(images)) if examples is None else np.array(examples, np.int64)
    result = np.full((len(examples), *images.shape[1:]), np.nan, np.float32)
    kernel(images, examples % len(images), examples, key, bounds, elastic, result)
    return result


def uniforms(example, count):
    num_blocks = -(-count // 4)
    words = [philox_by_the_paper((b, 0, example, 0), (0x89ABCDEF, 0x01234567), 32) for b in range(num_blocks)]
    return (np.array(words).T.reshape(-1)[:count] + 0.5) / 2**31 - 1


def by_scipy(image_CHW, example, bounds, elastic):
    """Resample an image with SciPy's own splines and interpolation, in float64."""
    _, H, W = image_CHW.shape
    amplitude, spacing = elastic
    A, B = (int((size - 1) / spacing) + 4 if amplitude else 0 for size in (H, W))
    u = uniforms(example, 4 + 2 * A * B)
    shift, angle, scale = np.array(bounds[:2]) * u[:2], np.pi * bounds[2] * u[2], 1 + bounds[3] * u[3]
    middle = (np.array([H, W]) - 1) / 2
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    places = np.stack(np.meshgrid(np.arange(H), np.arange(W), indexing="ij"), axis=-1)
    source = middle + (places - middle - shift) @ turn.T / scale
    if amplitude:
        for f, knots_AB in enumerate(u[4:].reshape(2, A, B)):
            rows = interpolate.BSpline(spacing * np.arange(-3, A + 1.0), knots_AB, 3)(np.arange(H))
            columns = interpolate.BSpline(spacing * np.arange(-3, B + 1.0), rows.T, 3)(np.arange(W))
            source[..., f] += amplitude * columns.T
    padded = np.pad(image_CHW.astype(np.float64), ((0, 0), (1, 1), (1, 1)))
    where = np.clip(np.moveaxis(source, -1, 0), -1, [[[H]], [[W]]]) + 1
    return np.array([ndimage.map_coordinates(plane, where, order=1) for plane in padded])


@SHAPES
@pytest.mark.parametrize(("bounds", "elastic"), [(ALL, NO_ELASTIC), (NOTHING, ELASTIC), (ALL, ELASTIC)])
def test_the_definition_is_the_resampling_of_scipy(shape_CHW, bounds, elastic):
    images = noise(shape_CHW)
    actual = augmented(augment_by_formula, images, bounds, elastic)
    for example, image_CHW in enumerate(images):
        np.testing.assert_allclose(actual[example], by_scipy(image_CHW, example, bounds, elastic), atol=1e-3)


@SHAPES
@pytest.mark.parametrize(
    ("bounds", "elastic"),
    [
        (ALL, NO_ELASTIC),
        (NOTHING, ELASTIC),
        (ALL, ELASTIC),
        ((40.0, 50.0, 3.1 / np.pi, 0.99), (1000.0, 1.8)),
        (ALL, (1e7, 9.0)),
    ],
)
def test_the_fast_form_is_the_definition_up_to_rounding(shape_CHW, bounds, elastic):
    # Where places are far outside, rounding moves them the more: the amplitude is then the scale of the error.
    images = smooth(shape_CHW, 20)
    actual, expected = (augmented(k, images, bounds, elastic) for k in (augment, augment_by_formula))
    differs = np.abs(actual - expected) > 255 * 4e-6 * (40 + elastic[0])
    assert not differs.any()


@BOTH
@SHAPES
@pytest.mark.parametrize("pixel_type", ["uint8", "float32"])
def test_bounds_of_zero_leave_every_bit(kernel, shape_CHW, pixel_type):
    images = noise(shape_CHW, pixel_type=pixel_type)
    assert np.array_equal(augmented(kernel, images, NOTHING, NO_ELASTIC), images)


@BOTH
def test_an_image_is_a_function_of_pixels_key_and_example_alone(kernel):
    images = noise((2, 9, 8))
    together = augmented(kernel, images, ALL, ELASTIC, examples=[4, 1, 3])
    assert np.array_equal(augmented(kernel, images, ALL, ELASTIC, examples=[1])[0], together[1])
    assert not np.array_equal(augmented(kernel, images, ALL, ELASTIC, examples=[7])[0], together[1])
    assert not np.array_equal(augmented(kernel, images, ALL, ELASTIC, examples=[1], key=np.uint64(5))[0], together[1])


@BOTH
def test_channels_move_together(kernel):
    images = np.repeat(noise((1, 12, 10)), 3, axis=1)
    result = augmented(kernel, images, ALL, ELASTIC)
    assert np.array_equal(result[:, 0], result[:, 1])
    assert np.array_equal(result[:, 0], result[:, 2])


def centres(images_NHW):
    total = images_NHW.sum(axis=(1, 2))
    rows, columns = np.indices(images_NHW.shape[1:])
    return np.stack([(images_NHW * axis).sum(axis=(1, 2)) / total for axis in (rows, columns)], axis=1)


@BOTH
def test_shifts_fill_their_bounds_in_pixels(kernel):
    image = np.zeros((1, 1, 21, 31), np.uint8)
    image[0, 0, 9:12, 14:17] = 200
    moved = centres(augmented(kernel, image, (3.0, 5.0, 0.0, 0.0), NO_ELASTIC, range(2000))[:, 0]) - (10, 15)
    assert (np.abs(moved).max(axis=0) <= (3.001, 5.001)).all()
    assert (np.abs(moved).max(axis=0) > (2.95, 4.95)).all()
    assert (np.abs(moved.mean(axis=0)) < 5 * np.array([3, 5]) / np.sqrt(3 * 2000)).all()


@BOTH
def test_angles_and_scales_fill_their_bounds(kernel):
    image = np.zeros((1, 1, 31, 31), np.uint8)
    image[0, 0, 14:17, 24:27] = 200
    turned = centres(augmented(kernel, image, (0.0, 0.0, 0.5 / np.pi, 0.0), NO_ELASTIC, range(1000))[:, 0]) - 15
    angles = np.arctan2(turned[:, 0], turned[:, 1])
    assert 0.48 < angles.max() < 0.502
    assert -0.502 < angles.min() < -0.48
    scaled = centres(augmented(kernel, image, (0.0, 0.0, 0.0, 0.3), NO_ELASTIC, range(1000))[:, 0]) - 15
    np.testing.assert_allclose(scaled[:, 0], 0, atol=1e-3)
    assert 12.8 < scaled[:, 1].max() < 13.1
    assert 6.9 < scaled[:, 1].min() < 7.2
