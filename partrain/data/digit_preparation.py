"""Prepares pictures of digits for a network that was trained on MNIST.

MNIST's digits are light on black. Each was "size normalized to fit in a 20x20 pixel box while preserving its aspect
ratio", and "centered in a 28x28 image by computing the center of mass of the pixels, and translating the image so as to
position this point at the center" (Y. LeCun, C. Cortes, C. J. C. Burges: The MNIST database of handwritten digits,
http://yann.lecun.com/exdb/mnist/). In MNIST's files the centre is pixel 14 of 28.

A photograph or a scan becomes such an image in four steps: estimate the paper's brightness at each place; take what
differs from it for ink; drop what does not belong to the digit; shrink and centre the rest. Lines that would become
thinner than MNIST's are thickened.

Shapes: H, W rows and columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from partrain.errors import DataError
from partrain.network.exact_mean import exact_mean

if TYPE_CHECKING:
    from PIL.Image import Image

# Larger pictures are shrunk to this number of pixels in height and width before anything else.
MAX_SIDE = 448
# Of MNIST: the box and the whole image, in pixels; the usual width of a line, as a share of the box.
BOX, FIELD = 20, 28
LINE_WIDTH, MIN_LINE_WIDTH = 2.0 / BOX, 1.5 / BOX
# The paper is estimated in a picture of at most this size, from a window of this share of it, wider than any line.
PAPER_SIDE, PAPER_WINDOW = 96, 0.35
# A picture is filtered if filtering changes its pixels by this much on average; with less noise, parts stay apart.
MIN_NOISE = 6.0
# Whether the ink is darker than the paper is decided in a picture of at most this size, from medians in a window of
# this share of it, more than half of which is paper.
MEDIAN_SIDE, MEDIAN_WINDOW = 48, 0.7
# Parts are found in a picture of at most this size. One belongs to the digit if it has this share of the area of the
# digit's largest part, and is no farther from it than this share of that part's size.
PARTS_SIDE, MIN_PART_AREA, MAX_PART_DISTANCE = 128, 0.02, 0.3
# What is smaller than this share of the picture is no digit.
MIN_DIGIT_SIDE = 0.1
# Ink that differs less from the paper than this (black differs by 1 from white) is noise.
MIN_CONTRAST = 0.06


def prepare_digit(grey_HW: NDArray[np.uint8], shape: tuple[int, int], name: str) -> NDArray[np.uint8]:
    """Return a picture of a digit as an image like those of MNIST: light on black, scaled and centred.

    Parameters
    ----------
    grey_HW : the picture; the digit is darker or lighter than its background, which covers more than half of it.
    shape : rows and columns of the result. Box and field have the proportions 20 : 28 of MNIST.
    name : the picture's name in messages.

    Raises
    ------
    DataError
        Nothing stands out from the background.
    """
    import PIL.Image

    picture = PIL.Image.fromarray(np.ascontiguousarray(grey_HW))
    picture.thumbnail((MAX_SIDE, MAX_SIDE), PIL.Image.Resampling.BOX)
    ink_HW = _ink(picture)
    digit_HW = _digit(ink_HW)
    if digit_HW is None:
        raise DataError(
            f"{name}: no digit was found: nothing stands out from the background. Give a picture of one digit, dark on "
            "light or light on dark."
        )
    return _centred(_scaled(_thickened(digit_HW), round(min(shape) * BOX / FIELD)), shape)


def _ink(picture: Image) -> NDArray[np.float64]:
    """Return how much each pixel differs from the paper, 0 to 1; (H,W)."""
    picture = _without_noise(picture)
    grey_HW = np.asarray(picture, np.float64)
    if _is_dark_on_light(picture):
        paper_HW = _paper(picture)
        difference_HW = (paper_HW - grey_HW) / np.maximum(paper_HW, 1)
    else:
        dark_HW = 255 - _paper(picture.point(lambda value: 255 - value))
        difference_HW = (grey_HW - dark_HW) / np.maximum(255 - dark_HW, 1)
    return np.clip(difference_HW, 0, 1)


def _without_noise(picture: Image) -> Image:
    """Return a large picture without the noise of a camera. If there is little, it stays: lines may be thin."""
    import PIL.ImageFilter

    if min(picture.size) < PAPER_SIDE:
        return picture
    filtered = picture.filter(PIL.ImageFilter.MedianFilter(3))
    change_HW = np.abs(np.asarray(picture, np.int64) - np.asarray(filtered, np.int64))
    return filtered if change_HW.sum() >= MIN_NOISE * change_HW.size else picture


def _is_dark_on_light(picture: Image) -> bool:
    """Return whether the ink is darker than the paper: pixels far from the median of their surroundings are darker."""
    import PIL.Image
    import PIL.ImageFilter

    small = picture.copy()
    small.thumbnail((MEDIAN_SIDE, MEDIAN_SIDE), PIL.Image.Resampling.BOX)
    margin = max(1, round(min(small.size) * MEDIAN_WINDOW / 2))
    values_HW = np.asarray(small)
    padded = PIL.Image.fromarray(np.pad(values_HW, margin, mode="symmetric"))
    median = padded.filter(PIL.ImageFilter.MedianFilter(2 * margin + 1))
    median_HW = np.asarray(median)[margin : margin + small.height, margin : margin + small.width]
    deviation_HW = values_HW.astype(np.float64) - median_HW
    return bool(np.sum(deviation_HW * deviation_HW * deviation_HW) < 0)


def _paper(picture: Image) -> NDArray[np.float64]:
    """Return the brightness that the paper has at each pixel of a picture with dark ink; (H,W).

    A closing (the maximum in a window, then the minimum) removes what is dark and thinner than the window.
    """
    import PIL.Image
    import PIL.ImageFilter

    small = picture.copy()
    small.thumbnail((PAPER_SIDE, PAPER_SIDE), PIL.Image.Resampling.BOX)
    margin = max(1, round(min(small.size) * PAPER_WINDOW / 2))
    # The picture is continued beyond its edges, where the window would otherwise be cut off.
    values_HW = np.pad(np.asarray(small), margin, mode="edge")
    closed = PIL.Image.fromarray(values_HW)
    for kind in (PIL.ImageFilter.MaxFilter, PIL.ImageFilter.MinFilter):
        closed = closed.filter(kind(2 * margin + 1))
    closed = closed.crop((margin, margin, margin + small.width, margin + small.height))
    closed = closed.filter(PIL.ImageFilter.GaussianBlur(1))
    return np.asarray(closed.resize(picture.size, PIL.Image.Resampling.BILINEAR), np.float64)


def _digit(ink_HW: NDArray[np.float64]) -> NDArray[np.uint8] | None:
    """Return the digit alone, cut out of its surroundings, 0 to 255; None if there is none."""
    import PIL.Image

    threshold = _threshold(ink_HW)
    is_ink_HW = ink_HW > threshold
    if not is_ink_HW.any() or is_ink_HW.all():
        return None
    below, above = exact_mean(ink_HW[~is_ink_HW]), exact_mean(ink_HW[is_ink_HW])
    if above - below < MIN_CONTRAST:
        return None
    # From paper to ink over the middle of the range: the paper's grain becomes black, the ink white, edges stay smooth.
    level_HW = np.clip((ink_HW - below - 0.25 * (above - below)) / (0.5 * (above - below)), 0, 1)
    whole = PIL.Image.fromarray(np.rint(level_HW * 255).astype(np.uint8))
    small = whole.copy()
    small.thumbnail((PARTS_SIDE, PARTS_SIDE), PIL.Image.Resampling.BOX)
    kept_HW = _parts_of_digit(np.asarray(small) >= 96)
    if kept_HW is None:
        return None
    mask = PIL.Image.fromarray(_widened(kept_HW).astype(np.uint8) * 255).resize(whole.size)
    digit_HW = np.where(np.asarray(mask) >= 128, np.asarray(whole), 0).astype(np.uint8)
    rows, columns = np.flatnonzero((digit_HW >= 64).any(axis=1)), np.flatnonzero((digit_HW >= 64).any(axis=0))
    return digit_HW[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if rows.size else None


def _threshold(ink_HW: NDArray[np.float64]) -> float:
    """Return the value that separates paper and ink best (N. Otsu, IEEE Trans. SMC 9 (1979) 62, eq. 18)."""
    counts, edges = np.histogram(ink_HW, bins=256, range=(0, 1))
    centres = (edges[:-1] + edges[1:]) / 2
    below, above = np.cumsum(counts), ink_HW.size - np.cumsum(counts)
    sums = np.cumsum(counts * centres)
    mean_below = sums / np.maximum(below, 1)
    mean_above = (sums[-1] - sums) / np.maximum(above, 1)
    distance = mean_above - mean_below
    return float(edges[1 + np.argmax(below * above * (distance * distance))])


def _widened(mask_HW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return a mask with the neighbours of its pixels."""
    padded = np.pad(mask_HW, 1)
    H, W = mask_HW.shape
    shifted = [padded[row : row + H, column : column + W] for row in range(3) for column in range(3)]
    return np.asarray(np.any(shifted, axis=0))


def _parts_of_digit(mask_HW: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """Return which pixels of the ink belong to the digit: its largest connected part, and parts close to that.

    What touches the edge of the picture is not the digit (but a shadow, the table, the end of a ruled line), unless
    nothing else is large enough.
    """
    labels_HW = _connected_parts(mask_HW)
    parts = [labels_HW == label for label in np.unique(labels_HW[mask_HW])]
    boxes = [_box(part) for part in parts]
    H, W = mask_HW.shape
    large = [max(b - t, r - l) + 1 >= MIN_DIGIT_SIDE * min(H, W) for t, l, b, r in boxes]
    inside = [t > 0 and l > 0 and b < H - 1 and r < W - 1 for t, l, b, r in boxes]
    candidates = [k for k in range(len(parts)) if large[k] and inside[k]] or [k for k in range(len(parts)) if large[k]]
    if not candidates:
        return None
    areas = [int(part.sum()) for part in parts]
    main = max(candidates, key=lambda k: areas[k])
    top, left, bottom, right = boxes[main]
    reach = MAX_PART_DISTANCE * (max(bottom - top, right - left) + 1)
    kept_HW: NDArray[np.bool_] = parts[main].copy()
    for k, (t, l, b, r) in enumerate(boxes):
        distance = max(t - bottom, top - b, l - right, left - r)
        if areas[k] >= MIN_PART_AREA * areas[main] and distance <= reach and inside[k] >= inside[main]:
            kept_HW |= parts[k]
    return kept_HW


def _connected_parts(mask_HW: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return a number for each pixel of a mask, equal for pixels that are connected, also diagonally; 0 outside."""
    labels_HW = np.where(mask_HW, np.arange(1, mask_HW.size + 1).reshape(mask_HW.shape), 0)
    H, W = mask_HW.shape
    while True:
        padded = np.pad(labels_HW, 1)
        shifted = [padded[row : row + H, column : column + W] for row in range(3) for column in range(3)]
        spread_HW = np.where(mask_HW, np.max(shifted, axis=0), 0)
        # A pixel also takes the number of the pixel that it is named after, which doubles the reach in each round.
        named = np.concatenate([[0], spread_HW.ravel()])
        spread_HW = np.where(mask_HW, named[spread_HW], 0)
        if np.array_equal(spread_HW, labels_HW):
            return labels_HW
        labels_HW = spread_HW


def _box(mask_HW: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Return the first and last rows and columns of a mask: top, left, bottom, right."""
    rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    return int(rows[0]), int(columns[0]), int(rows[-1]), int(columns[-1])


def _thickened(digit_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the digit with lines at least as wide as the thin ones of MNIST."""
    import PIL.Image
    import PIL.ImageFilter

    inside_HW = np.pad(digit_HW >= 128, 1)
    num_edges = sum(int((np.diff(inside_HW, axis=axis) != 0).sum()) for axis in (0, 1))
    width = 2 * inside_HW.sum() / max(1, num_edges)
    size = max(digit_HW.shape)
    if width >= MIN_LINE_WIDTH * size:
        return digit_HW
    radius = round((LINE_WIDTH * size - width) / 2)
    if radius < 1:
        return digit_HW
    wider = PIL.Image.fromarray(np.pad(digit_HW, radius)).filter(PIL.ImageFilter.MaxFilter(2 * radius + 1))
    return np.asarray(wider.filter(PIL.ImageFilter.GaussianBlur(radius / 2)))


def _scaled(digit_HW: NDArray[np.uint8], box: int) -> NDArray[np.uint8]:
    """Return the digit with its longer side as long as the box, and white as its lightest value."""
    import PIL.Image

    H, W = digit_HW.shape
    size = (max(1, round(W * box / max(H, W))), max(1, round(H * box / max(H, W))))
    scaled = np.asarray(PIL.Image.fromarray(digit_HW).resize(size, PIL.Image.Resampling.BILINEAR), np.float64)
    return np.asarray(np.rint(scaled * (255 / scaled.max())), np.uint8)


def _centred(digit_HW: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Return an image of the given shape with the digit's centre of mass in the middle, as far as it stays inside."""
    mass = digit_HW.astype(np.float64)
    image_HW = np.zeros(shape, np.uint8)
    places = []
    for axis, (side, extent) in enumerate(zip(shape, digit_HW.shape, strict=True)):
        centre = float((mass.sum(axis=1 - axis) * np.arange(extent)).sum() / mass.sum())
        first = min(max(side // 2 - round(centre), 0), side - extent)
        places.append(slice(first, first + extent))
    image_HW[tuple(places)] = digit_HW
    return image_HW
