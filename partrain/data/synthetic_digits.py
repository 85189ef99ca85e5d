"""Generates synthetic handwritten digits, which replace MNIST if its files are not available.

Each digit has a few styles, each given by strokes. An image bends the strokes of a style, applies a random affine map,
and draws them with a random pen and noise.

An image depends on (seed, split, index) alone: random words come in blocks for a fixed number of images, and each image
owns fixed positions in its block. All operations from the words to the pixels are rounded exactly by IEEE 754 (no sine,
no matrix product), so every processor generates the same images.

Shapes: N images; K points, the two ends of each segment of an image; H, W rows, columns.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from partrain.kernels.compiler.loading import load
from partrain.kernels.randomness import philox_words, uniforms
from partrain.kernels.strokes import draw_strokes

Floats = NDArray[np.float64]

IMAGE_SIZE = 28
BLOCK_SIZE = 1000

# Ranges of the properties that are drawn uniformly for each image; lengths are in pixels. As in MNIST, a digit is about
# 20 pixels large, and its strokes are two to three pixels wide. These ranges and the bends determine how hard the task
# is: a network of two small convolutions reaches about 99 % accuracy after one epoch of 50,000 images, and the nearest
# class mean 74 %.
_RANGES = {
    "tangent": (-0.17, 0.17),  # of half the rotation angle, which is at most 19 degrees
    "shear": (-0.45, 0.45),  # slant to the left and to the right
    "aspect": (0.65, 1.25),  # factor of the width
    "size": (15.5, 20.5),  # longer side of the bounding box of the strokes' centre lines
    "shift_x": (-1.3, 1.3),
    "shift_y": (-1.3, 1.3),
    "radius": (0.85, 1.5),
    "softness": (1.0, 2.0),
    "ink": (190.0, 255.0),
    "noise_level": (0.0, 60.0),
}

# A square lattice of control points over the digit's box, each displaced at random, bends the strokes.
_LATTICE_SIZE = 4
_LARGEST_BEND = 0.24  # in digit heights

_NUM_CHOICES = 2  # the digit, and its style
_NUM_BENDS = 2 * _LATTICE_SIZE * _LATTICE_SIZE
_NUM_UNIFORMS = _NUM_CHOICES + len(_RANGES) + _NUM_BENDS
_NUM_NOISE_WORDS = IMAGE_SIZE * IMAGE_SIZE // 8

# The styles of each digit. A stroke is a smooth curve through its knots x,y, in hundredths of the digit's height with y
# downwards; it is closed if its ends coincide. A bar separates strokes: a corner is the end of one and the start of the
# next.
_STYLES: tuple[tuple[str, ...], ...] = (
    (  # 0: round, narrow, with crossing ends
        "50,0 76,14 86,50 76,86 50,100 24,86 14,50 24,14 50,0",
        "50,0 68,14 74,50 68,86 50,100 32,86 26,50 32,14 50,0",
        "66,6 42,4 22,25 16,60 30,92 52,100 74,84 84,50 72,14 50,2",
    ),
    (  # 1: a line, with a flag, with flag and foot
        "50,0 50,100",
        "34,24 54,0 | 54,0 54,100",
        "32,22 52,0 | 52,0 52,100 | 30,100 74,100",
    ),
    (  # 2: with a corner, with a loop, with a short neck
        "20,24 32,5 55,0 76,12 76,35 55,64 18,100 | 18,100 84,100",
        "20,20 40,1 68,6 74,32 55,66 30,94 14,92 20,78 42,84 62,97 86,92",
        "22,12 48,0 74,10 78,32 60,58 20,94 | 20,94 50,90 82,100",
    ),
    (  # 3: two bows, flat top, with a small loop in the middle
        "20,12 46,0 74,10 74,34 42,47 | 42,47 76,58 82,82 54,100 18,90",
        "20,0 78,0 | 78,0 46,40 | 46,40 76,50 80,82 52,100 18,90",
        "22,10 50,0 72,14 66,36 46,48 40,44 50,42 76,58 78,84 50,100 20,92",
    ),
    (  # 4: open, closed, open and round
        "26,0 18,56 | 18,56 84,54 | 72,2 66,100",
        "62,0 12,66 | 12,66 90,66 | 62,0 62,100",
        "22,2 18,38 34,54 74,44 | 78,0 74,44 | 74,44 68,100",
    ),
    (  # 5: with corners, round, with a detached bar
        "78,0 28,0 | 28,0 24,44 | 24,44 54,36 80,54 76,86 48,100 16,90",
        "80,2 40,4 26,26 42,42 70,54 76,80 54,100 20,94",
        "36,6 84,0 | 32,8 24,42 | 24,42 52,40 72,58 68,86 42,100 14,92",
    ),
    (  # 6: with a round back, straight, with a small bowl
        "72,2 42,18 22,58 32,92 56,100 78,84 74,60 50,52 26,68",
        "50,0 28,40 22,74 36,98 64,96 76,74 60,54 36,60 24,78",
        "78,10 58,0 34,16 20,56 28,90 50,100 70,88 68,68 48,62 24,78",
    ),
    (  # 7: plain, with a bar, with a hook, bent
        "16,0 82,0 | 82,0 40,100",
        "16,2 82,0 | 82,0 40,100 | 36,50 80,48",
        "16,18 18,2 | 18,2 80,2 | 80,2 46,100",
        "16,6 48,8 80,0 | 80,0 58,40 50,100",
    ),
    (  # 8: one stroke, two rings, open at the top
        "50,0 26,10 28,34 50,47 74,64 76,88 50,100 24,88 26,64 50,47 72,34 74,10 50,0",
        "50,0 72,10 72,34 50,45 28,34 28,10 50,0 | 50,45 78,58 78,87 50,100 22,87 22,58 50,45",
        "78,8 50,0 28,14 36,38 62,56 70,82 48,100 26,86 36,60 62,38 80,14",
    ),
    (  # 9: with a straight stem, with a tail, bent
        "74,24 60,2 34,6 22,28 34,48 60,46 74,24 | 74,24 68,100",
        "74,20 54,0 28,12 24,38 46,50 74,20 | 74,20 76,60 60,94 26,96",
        "72,12 48,0 24,16 26,42 50,50 74,30 | 74,10 72,50 50,100",
    ),
)


def draw_digits(first: int, last: int, *, seed: int, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw the images `first` to `last` - 1 of a split.

    Parameters
    ----------
    first, last : the range of indices, 0 <= first <= last.
    seed : another seed gives another data set.
    split : "train", "test" or any other name; splits share no random words.

    Returns
    -------
    images : uint8 of shape (last - first, 1, 28, 28), white on black.
    labels : int64 of shape (last - first,), each digit with probability 1/10.

    Side effects
    ------------
    Compiles the drawing kernel, or loads it from the kernel cache.
    """
    assert 0 <= first <= last
    load([draw_strokes], "float64")
    images_NHW = np.empty((last - first, IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    labels_N = np.empty(last - first, np.int64)
    start = first
    while start < last:
        block, skip = divmod(start, BLOCK_SIZE)
        stop = min(last, (block + 1) * BLOCK_SIZE)
        here = slice(start - first, stop - first)
        # The words of a block are a stream, of which the images before `stop` need the beginning only.
        count = skip + stop - start
        shape = uniforms(count * _NUM_UNIFORMS, seed=seed, purpose="synthetic-digits", name=f"{split}/{block}/shape")
        noise = philox_words(
            count * _NUM_NOISE_WORDS, seed=seed, purpose="synthetic-digits", name=f"{split}/{block}/noise"
        )
        labels_N[here] = _draw(
            shape.reshape(count, _NUM_UNIFORMS)[skip:],
            noise.astype("<u8").view(np.uint8).reshape(count, IMAGE_SIZE, IMAGE_SIZE)[skip:],
            images_NHW[here],
        )
        start = stop
    return images_NHW[:, np.newaxis], labels_N


def _draw(uniforms_NU: Floats, noise_NHW: NDArray[np.uint8], images_NHW: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Draw an image per row of random numbers into `images_NHW` (overwritten); return the labels."""
    choices, scalars, bends = np.split(uniforms_NU, [_NUM_CHOICES, _NUM_CHOICES + len(_RANGES)], axis=1)
    labels_N = (10 * choices[:, 0]).astype(np.int64)
    style_N = _FIRST_STYLE[labels_N] + (_NUM_STYLES[labels_N] * choices[:, 1]).astype(np.int64)
    properties = {
        name: low + (high - low) * column
        for (name, (low, high)), column in zip(_RANGES.items(), scalars.T, strict=True)
    }
    x_NK, y_NK = _place(*_bend(style_N, _LARGEST_BEND * (2 * bends - 1)), properties)
    draw_strokes(
        np.stack((x_NK, y_NK), axis=2).reshape(len(style_N), -1, 4),
        properties["radius"],
        properties["softness"],
        properties["ink"],
        properties["noise_level"],
        noise_NHW,
        images_NHW,
    )
    return labels_N


def _bend(style_N: NDArray[np.int64], bends_NB: Floats) -> tuple[Floats, Floats]:
    """Return the coordinates x and y of the points of each image's bent strokes.

    p + sum over i, j of  b_i(p_x) b_j(p_y) · bend_ij,  b the Bernstein polynomials.

    Source: Sederberg, Parry, "Free-form deformation of solid geometric models", SIGGRAPH 1986.
    """
    x_NK = _POINTS[style_N, :, 0]
    y_NK = _POINTS[style_N, :, 1]
    for k, weights in enumerate(_LATTICE_WEIGHTS):
        weights_NK = weights[style_N]
        x_NK += weights_NK * bends_NB[:, 2 * k, np.newaxis]
        y_NK += weights_NK * bends_NB[:, 2 * k + 1, np.newaxis]
    return x_NK, y_NK


def _place(x_NK: Floats, y_NK: Floats, properties: dict[str, Floats]) -> tuple[Floats, Floats]:
    """Convert the points from digit heights to pixels: stretch, shear and rotate them, and scale their bounding box."""
    by = {name: values[:, np.newaxis] for name, values in properties.items()}
    x_NK = by["aspect"] * x_NK + by["shear"] * y_NK
    # Cosine and sine from the tangent of half the angle need division only.
    squared = by["tangent"] * by["tangent"]
    cosine = (1 - squared) / (1 + squared)
    sine = 2 * by["tangent"] / (1 + squared)
    x_NK, y_NK = cosine * x_NK - sine * y_NK, sine * x_NK + cosine * y_NK
    scale = by["size"] / np.maximum(np.ptp(x_NK, axis=1), np.ptp(y_NK, axis=1))[:, np.newaxis]
    return _centred(scale * x_NK) + by["shift_x"], _centred(scale * y_NK) + by["shift_y"]


def _centred(values_NK: Floats) -> Floats:
    middle_N1: Floats = 0.5 * (values_NK.min(axis=1, keepdims=True) + values_NK.max(axis=1, keepdims=True))
    return values_NK - middle_N1 + 0.5 * (IMAGE_SIZE - 1)


def _segments(strokes: str) -> list[tuple[float, ...]]:
    """Return the segments (x0, y0, x1, y1) of a style."""
    segments = []
    for stroke in strokes.split(" | "):
        knots = [tuple(float(number) / 100 for number in point.split(",")) for point in stroke.split()]
        points = _curve(np.array(knots)).tolist()
        segments += [(*start, *end) for start, end in pairwise(points)]
    return segments


def _curve(knots: Floats, steps: int = 4) -> Floats:
    """Return points of the Catmull-Rom curve through the knots, `steps` per span."""
    is_closed = len(knots) > 2 and np.array_equal(knots[0], knots[-1])
    before, after = (knots[-2], knots[1]) if is_closed else (knots[0], knots[-1])
    padded = np.vstack((before, knots, after))
    points = [knots[0]]
    for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        for t in np.arange(1, steps + 1) / steps:
            cubic = 3 * b - a - 3 * c + d
            quadratic = 2 * a - 5 * b + 4 * c - d
            points.append(b + 0.5 * t * (c - a + t * (quadratic + t * cubic)))
    return np.array(points)


def _points_of_all_styles() -> Floats:
    """Return the ends of the segments as an array of shape (styles, points, 2).

    Styles with fewer segments repeat their last one, which changes nothing in the image.
    """
    styles = [_segments(strokes) for styles_of_digit in _STYLES for strokes in styles_of_digit]
    longest = max(map(len, styles))
    padded = [segments + segments[-1:] * (longest - len(segments)) for segments in styles]
    return np.array(padded).reshape(len(styles), 2 * longest, 2)


def _lattice_weights(points: Floats) -> Floats:
    """Return b_i(x) b_j(y) for each control point of the lattice: shape (lattice points, styles, points)."""
    x, y = points[:, :, 0], points[:, :, 1]
    return np.stack([a * b for b in _bernstein(y) for a in _bernstein(x)])


def _bernstein(t: Floats) -> tuple[Floats, ...]:
    s = 1 - t
    return s * s * s, 3 * s * s * t, 3 * s * t * t, t * t * t


_NUM_STYLES = np.array([len(styles) for styles in _STYLES])
_FIRST_STYLE = np.cumsum(_NUM_STYLES) - _NUM_STYLES
_POINTS = _points_of_all_styles()
_LATTICE_WEIGHTS = _lattice_weights(_POINTS)
