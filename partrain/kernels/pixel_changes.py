"""Changes training images pixel by pixel: crops, mirrors, brightness, contrast and erased boxes, in this order.

- Crop: zeros are added around the image, and a part of the image's size is cut out at a random place.
- Flip: with probability 1/2 rows are reversed, and with probability 1/2 columns.
- Brightness: pixels are multiplied by a factor.
- Contrast: their differences from the image's mean are multiplied by a factor. The mean of three channels is that of
  0.299 R + 0.587 G + 0.114 B, as in BT.601; otherwise, that of all channels.
- Erase: with some probability, the pixels of a box become those of `fill`. The box is drawn until it fits into the
  image, up to 10 times: its area is uniform between two shares of the image's, and the logarithm of its aspect (rows to
  columns) between two logarithms.

The factors are uniform between 1 - b and 1 + b, b the bound. After each, pixels are moved into the range of uint8
images.

Shapes: M images of a split; N examples; C, H, W channels, rows, columns.

Sources: Zhong et al., "Random erasing data augmentation", arXiv 1708.04896, algorithm 1; the transforms RandomCrop,
RandomHorizontalFlip, ColorJitter and RandomErasing of torchvision.
"""

from __future__ import annotations

import math

import numpy as np

from partrain.kernels.compiler.flags import inlined, kernel
from partrain.kernels.elementary_inlined import exp
from partrain.kernels.philox import below, draw_words, signed_uniform, uniform

# The words of an example; after them, four for each box: area, aspect, row and column of its first pixel.
_FLIP_ROWS, _FLIP_COLUMNS, _CROP_ROW, _CROP_COLUMN, _BRIGHTNESS, _CONTRAST, _ERASE, _BOXES = 0, 1, 2, 3, 4, 5, 6, 8
NUM_BOXES = 10
_NUM_BLOCKS = _BOXES // 4 + NUM_BOXES
_HALF = np.uint32(2**31)


@inlined
def _copy_row(source_W, offset, is_reversed, y_W):
    """Write y[j] = source[j + offset], reversed if `is_reversed`; 0 outside of the source."""
    W = y_W.size
    first = min(max(0, -offset), W)
    end = max(first, min(W, W - offset))
    y_W[:] = 0
    if is_reversed:
        part, place = source_W[first + offset : end + offset], W - 1 - first
        for k in range(part.size):
            y_W[place - k] = part[k]
    else:
        part, into = source_W[first + offset : end + offset], y_W[first:end]
        for k in range(part.size):
            into[k] = part[k]


@inlined
def _copy(image_CHW, words, flips, padding, y_CHW):
    """Copy an image, cropped and flipped."""
    C, H, _ = y_CHW.shape
    offset_i = below(words[_CROP_ROW], 2 * padding[0] + 1) - padding[0]
    offset_j = below(words[_CROP_COLUMN], 2 * padding[1] + 1) - padding[1]
    flips_rows = flips[0] and words[_FLIP_ROWS] < _HALF
    flips_columns = flips[1] and words[_FLIP_COLUMNS] < _HALF
    for c in range(C):
        for i in range(H):
            source = (H - 1 - i if flips_rows else i) + offset_i
            if 0 <= source < H:
                _copy_row(image_CHW[c, source], offset_j, flips_columns, y_CHW[c, i])
            else:
                y_CHW[c, i] = 0


@inlined
def _grey_mean(x_CHW, sums_W):
    """Return the mean grey level. Sums of columns first: their order is fixed, and vectors add several."""
    C, H, W = x_CHW.shape
    sums_W[:] = 0
    for c in range(C):
        weight = 1 / C
        if C == 3:
            weight = 0.299 if c == 0 else 0.587 if c == 1 else 0.114
        for i in range(H):
            row = x_CHW[c, i]
            for j in range(sums_W.size):
                sums_W[j] += weight * row[j]
    total = 0.0
    for j in range(W):
        total += sums_W[j]
    return total / (H * W)


@inlined
def _scale(y, factor, offset, limits):
    """Replace y by factor · y + offset, moved into the limits."""
    factor, offset = np.float32(factor), np.float32(offset)
    lowest, highest = np.float32(limits[0]), np.float32(limits[1])
    for k in range(y.size):
        y[k] = min(max(y[k] * factor + offset, lowest), highest)


@inlined
def _box(words, area, log_aspect, H, W):
    """Return first row, end of the rows, first column and end of the columns; all 0 if no box fits."""
    for k in range(_BOXES, _BOXES + 4 * NUM_BOXES, 4):
        pixels = (area[0] + (area[1] - area[0]) * uniform(words[k])) * (H * W)
        aspect = exp(log_aspect[0] + (log_aspect[1] - log_aspect[0]) * uniform(words[k + 1]))
        rows, columns = int(math.sqrt(pixels * aspect) + 0.5), int(math.sqrt(pixels / aspect) + 0.5)
        if 0 < rows <= H and 0 < columns <= W:
            top, left = below(words[k + 2], H - rows + 1), below(words[k + 3], W - columns + 1)
            return top, top + rows, left, left + columns
    return 0, 0, 0, 0


_ARGUMENTS = (
    "int64[::1], int64[::1], uint64, UniTuple(boolean, 2), UniTuple(int64, 2), UniTuple(float64, 2),"
    " UniTuple(float64, 2), float64, UniTuple(float64, 2), UniTuple(float64, 2), float32[::1], float32[:,:,:,::1]"
)


@kernel(f"void(uint8[:,:,:,::1], {_ARGUMENTS})", f"void(float32[:,:,:,::1], {_ARGUMENTS})")
def change_pixels(
    images_MCHW,
    places_N,
    examples_N,
    key,
    flips,
    padding,
    jitter,
    limits,
    erase_probability,
    erase_area,
    erase_log_aspect,
    fill_C,
    changed_NCHW,
):
    """Write the changed images of N examples.

    Parameters
    ----------
    images_MCHW : raw pixels; read.
    places_N : indices of the examples among them; read.
    examples_N : indices of the examples in the training set; random numbers depend on them. Read.
    key : the key of the random numbers; depends on seed and epoch.
    flips : whether rows, and whether columns, may be reversed.
    padding : rows and columns of zeros at each side, for the crop.
    jitter : the bounds of brightness and contrast.
    limits : the lowest and the highest pixel after a factor.
    erase_probability : the probability that a box is erased.
    erase_area : the least and the greatest share of the image that a box has.
    erase_log_aspect : the logarithms of the least and the greatest aspect.
    fill_C : the pixels of erased boxes.
    changed_NCHW : raw pixels; overwritten.
    """
    N, C, H, W = changed_NCHW.shape
    words_4B = np.empty((4, _NUM_BLOCKS), np.uint32)
    words, sums_W = words_4B.reshape(-1), np.empty(W)
    for n in range(N):
        draw_words(key, examples_N[n], words_4B)
        y_CHW = changed_NCHW[n]
        _copy(images_MCHW[places_N[n]], words, flips, padding, y_CHW)
        if jitter[0] > 0:
            _scale(y_CHW.reshape(-1), 1 + jitter[0] * signed_uniform(words[_BRIGHTNESS]), 0.0, limits)
        if jitter[1] > 0:
            factor = 1 + jitter[1] * signed_uniform(words[_CONTRAST])
            _scale(y_CHW.reshape(-1), factor, (1 - factor) * _grey_mean(y_CHW, sums_W), limits)
        if uniform(words[_ERASE]) < erase_probability:
            first_i, end_i, first_j, end_j = _box(words, erase_area, erase_log_aspect, H, W)
            for c in range(C):
                for i in range(first_i, end_i):
                    y_CHW[c, i, first_j:end_j] = fill_C[c]
