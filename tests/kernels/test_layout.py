"""Shapes: N examples; M all images; C, H, W channels, rows, columns."""

from __future__ import annotations

import numpy as np
import pytest

from partrain.kernels import layout, loops
from partrain.kernels.compiler.loading import load
from tests.kernels.channels_last import assert_nothing_was_written_around, channels_first, placed, spoilt

SHAPES_CHW = pytest.mark.parametrize(
    "shape_CHW", [(1, 28, 28), (3, 5, 7), (2, 1, 1), (17, 4, 3), (17, 9, 5), (16, 4, 4)]
)
BORDERS = pytest.mark.parametrize("border", [(0, 0), (2, 2), (0, 3), (4, 1)])


@pytest.fixture(scope="session", autouse=True)
def _loaded_kernels():
    load((layout.gather_normalised, layout.flatten_forward, layout.flatten_backward_input), "float32")
    load([loops.gather_normalised], "float32")


def gathered(images, indices, mean, inverse_std, border, offset=0):
    """Gather into an array full of NaN; return what is inside the border, as (N, C, H, W)."""
    (rows, columns), (_, C, H, W) = border, images.shape
    x_NHWC = spoilt((len(indices), H + 2 * rows, W + 2 * columns, C), offset)
    layout.gather_normalised(images, indices, mean, inverse_std, border, x_NHWC)
    assert_nothing_was_written_around(x_NHWC)
    inside = x_NHWC[:, rows : rows + H, columns : columns + W].copy()
    x_NHWC[:, rows : rows + H, columns : columns + W] = np.nan
    assert np.isnan(x_NHWC).all()
    return channels_first(inside)


@pytest.mark.parametrize("pixel_type", ["uint8", "float32"])
@SHAPES_CHW
@BORDERS
def test_gathered_images_are_the_chosen_ones_normalised_by_channel_inside_their_border(pixel_type, shape_CHW, border):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (11, *shape_CHW)).astype(pixel_type)
    indices = np.array([10, 0, 3, 3], np.int64)
    mean, inverse_std = rng.uniform(1, 90, shape_CHW[0]), rng.uniform(0.01, 2, shape_CHW[0])
    x = gathered(images, indices, mean.astype(np.float32), inverse_std.astype(np.float32), border)
    expected = (images[indices].astype(np.float64) - mean[:, None, None]) * inverse_std[:, None, None]
    np.testing.assert_allclose(x, expected, rtol=1e-5, atol=5e-3)


@SHAPES_CHW
def test_gathered_images_have_the_bits_of_the_loops_wherever_they_stand(shape_CHW):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (11, *shape_CHW), dtype=np.uint8)
    mean, inverse_std = rng.uniform(1, 9, (2, shape_CHW[0])).astype(np.float32)
    indices = np.array([7, 1, 10, 0, 1], np.int64)
    expected = np.empty((5, *shape_CHW), np.float32)
    loops.gather_normalised(images, indices, mean, inverse_std, expected)
    for offset in (0, 1, 8):
        assert np.array_equal(gathered(images, indices, mean, inverse_std, (1, 2), offset), expected)
    for n in range(5):
        alone = gathered(images, indices[n : n + 1], mean, inverse_std, (0, 0))
        assert np.array_equal(alone[0], expected[n])


def test_a_nan_among_the_pixels_is_gathered_as_nan():
    images = np.zeros((2, 1, 3, 3), np.float32)
    images[1, 0, 2, 1] = np.nan
    x = gathered(images, np.array([1]), np.zeros(1, np.float32), np.ones(1, np.float32), (1, 1))
    assert np.array_equal(np.isnan(x), np.isnan(images[1:]))


@SHAPES_CHW
@pytest.mark.parametrize("N", [1, 5])
def test_flattened_rows_are_in_the_order_of_channels_rows_columns(shape_CHW, N):
    x_NCHW = np.random.default_rng(0).standard_normal((N, *shape_CHW)).astype(np.float32)
    x_NCHW[0, 0, 0, 0] = np.nan
    x_NHWC, y_ND = placed(np.ascontiguousarray(x_NCHW.transpose(0, 2, 3, 1))), spoilt((N, x_NCHW[0].size))
    layout.flatten_forward(x_NHWC, y_ND)
    np.testing.assert_array_equal(y_ND, x_NCHW.reshape(N, -1))
    back_NHWC = spoilt(x_NHWC.shape)
    layout.flatten_backward_input(y_ND, back_NHWC)
    np.testing.assert_array_equal(back_NHWC, x_NHWC)
    assert_nothing_was_written_around(y_ND, back_NHWC)
