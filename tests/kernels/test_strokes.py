from __future__ import annotations

import math

import numpy as np
import pytest

from partrain.kernels.compiler.loading import load
from partrain.kernels.strokes import draw_strokes


@pytest.fixture(autouse=True, scope="module")
def _loaded_kernel():
    load([draw_strokes], "float64")


def drawn(segments, *, radius=1.2, softness=1.0, ink=255.0, noise_level=0.0, noise=None, shape=(28, 28)):
    """Draw one image with the kernel."""
    noise = np.zeros(shape, np.uint8) if noise is None else noise
    image = np.full((1, *shape), 99, np.uint8)
    draw_strokes(
        np.array([segments], np.float64).reshape(1, -1, 4),
        np.array([radius]),
        np.array([softness]),
        np.array([ink]),
        np.array([noise_level]),
        noise[np.newaxis],
        image,
    )
    return image[0]


def distance(x, y, segment):
    """The distance to the line where the foot lies between the segment's ends, else to the nearer end."""
    x0, y0, x1, y1 = segment
    to_ends = min(math.hypot(x - x0, y - y0), math.hypot(x - x1, y - y1))
    length = math.hypot(x1 - x0, y1 - y0)
    if length == 0:
        return to_ends
    foot = ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length
    if not 0 <= foot <= length:
        return to_ends
    return abs((x - x0) * (y1 - y0) - (y - y0) * (x1 - x0)) / length


def grey_by_the_formula(segments, radius, softness, ink, noise_level, noise):
    """The grey levels before they are rounded: every pixel against every segment."""
    grey = np.empty(noise.shape)
    for h, w in np.ndindex(noise.shape):
        nearest = min(distance(w, h, segment) for segment in segments)
        coverage = np.clip(0.5 + (radius - nearest) / softness, 0, 1)
        grey[h, w] = np.clip(ink * coverage + noise_level * (noise[h, w] / 127.5 - 1), 0, 255)
    return grey


@pytest.mark.parametrize("seed", range(6))
def test_images_follow_the_formula(seed):
    rng = np.random.default_rng(seed)
    shape = (28, 28) if seed % 2 else (11, 17)
    segments = rng.uniform(-6, 34, (5, 4))  # some of them outside the image
    segments[1, 2:] = segments[1, :2]  # length 0: a dot
    pen = {
        "radius": rng.uniform(0.3, 3),
        "softness": rng.uniform(0.2, 3),
        "ink": rng.uniform(100, 255),
        "noise_level": rng.uniform(0, 60),
        "noise": rng.integers(0, 256, shape, dtype=np.uint8),
    }
    expected = grey_by_the_formula(segments, **pen)
    # Rounded to the nearest, give or take the last bits of a level that lies half-way.
    assert np.abs(drawn(segments, **pen, shape=shape) - expected).max() <= 0.5 + 1e-9


def test_a_line_is_as_wide_as_twice_its_radius():
    image = drawn([[3.0, 14.0, 24.0, 14.0]], radius=1.5, softness=1.0)
    assert image[:, 10].tolist() == [0] * 13 + [255] * 3 + [0] * 12


def test_a_segment_drawn_twice_changes_nothing():
    segment = [3.2, 4.1, 20.7, 22.9]
    assert np.array_equal(drawn([segment]), drawn([segment, segment]))


def test_the_direction_of_a_segment_changes_nothing():
    forwards = drawn([[3.25, 4.5, 20.75, 22.0]])
    assert np.abs(forwards.astype(int) - drawn([[20.75, 22.0, 3.25, 4.5]])).max() <= 1


def test_a_segment_outside_the_image_leaves_it_black():
    assert not drawn([[-9.0, -9.0, -5.0, 40.0]]).any()


def test_strokes_do_not_depend_on_the_other_images_of_the_call():
    rng = np.random.default_rng(0)
    segments = rng.uniform(0, 27, (7, 4, 4))
    pens = rng.uniform((0.8, 1, 150, 0), (1.5, 2, 255, 40), (7, 4)).T.copy()
    noise = rng.integers(0, 256, (7, 28, 28), dtype=np.uint8)
    together = np.empty((7, 28, 28), np.uint8)
    draw_strokes(segments, *pens, noise, together)
    for n in range(7):
        alone = np.empty((1, 28, 28), np.uint8)
        draw_strokes(segments[n : n + 1], *pens[:, n : n + 1].copy(), noise[n : n + 1], alone)
        assert np.array_equal(alone[0], together[n])
