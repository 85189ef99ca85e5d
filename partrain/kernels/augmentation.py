"""Augments training images by random shifts, rotations, scales and elastic distortions, in one resampling.

Pixel p = (i, j) of the augmented image is the value of the original image at

    q = m + A · (p - m - t) + d(p),        m the image's centre,   A = (rotation by -r) / s

interpolated bilinearly between pixels, and 0 outside. The shift t, the angle r and the scale s are drawn uniformly
between their bounds, for each example. So are the numbers u at the knots of a coarse grid, `spacing` pixels apart.
The displacement d of rows (f = 0) and columns (f = 1) is computed from them:

    d_f(i, j) = amplitude · sum over knots a, b of  β(i/spacing - a) · β(j/spacing - b) · u[f, a, b]

β is the cubic B-spline. This is uniform noise smoothed by β, which is close to a Gaussian of standard deviation
spacing / sqrt(3): the elastic distortion of Simard, Steinkraus, Platt, "Best practices for convolutional
neural networks applied to visual document analysis", ICDAR 2003, section 2, without a convolution. B-splines: Unser,
"Splines: a perfect fit for signal and image processing", IEEE Signal Processing Magazine 1999.

`bounds` are four numbers (largest shift in rows and columns, in pixels; largest angle, in multiples of pi; largest
change of the scale, a fraction), `elastic` two (amplitude and spacing, in pixels). With an amplitude of 0, no u is
drawn.

`augment_by_formula` is the definition: it computes each pixel by the formula, in float64. `augment` is faster, and
differs by rounding: it sums over rows of knots first, and computes in float32, without branches.

Shapes: M images of a split; N examples; C, H, W channels, rows, columns; A, B rows and columns of knots.
"""

from __future__ import annotations

import math

import numpy as np

from partrain.kernels.compiler.flags import inlined, kernel
from partrain.kernels.elementary_inlined import cos_sin_pi
from partrain.kernels.philox import draw_words, signed_uniform

# The first words of an example are for the affine map, the others for the knots.
_NUM_AFFINE = 4
_ARGUMENTS = "int64[::1], int64[::1], uint64, UniTuple(float64, 4), UniTuple(float64, 2), float32[:,:,:,::1]"
_SIGNATURES = (f"void(uint8[:,:,:,::1], {_ARGUMENTS})", f"void(float32[:,:,:,::1], {_ARGUMENTS})")


@inlined
def _num_knots(size, elastic):
    """Return the number of knots along `size` pixels: one extra on the left, and two on the right."""
    return int((size - 1) / elastic[1]) + 4 if elastic[0] > 0 else 0


@inlined
def _draw(key, example, words_4B, uniforms):
    draw_words(key, example, words_4B)
    words = words_4B.reshape(-1)
    for k in range(uniforms.size):
        uniforms[k] = signed_uniform(words[k])


@inlined
def _affine_map(uniforms, bounds):
    """Return t (rows, columns), and cos(r)/s and sin(r)/s, the numbers of the matrix A."""
    (cos, sin), scale = cos_sin_pi(bounds[2] * uniforms[2]), 1 + bounds[3] * uniforms[3]
    return bounds[0] * uniforms[0], bounds[1] * uniforms[1], cos / scale, sin / scale


@inlined
def _spline(t, k):
    """Return β at a point's distance from knot k of the four around it; t is its position between knots 1 and 2."""
    square = t * t
    cube = square * t
    if k == 0:
        return (1 - t) * (1 - t) * (1 - t) / 6
    if k == 1:
        return (3 * cube - 6 * square + 4) / 6
    if k == 2:
        return (-3 * cube + 3 * square + 3 * t + 1) / 6
    return cube / 6


@inlined
def _pixel(image_HW, i, j):
    H, W = image_HW.shape
    return float(image_HW[i, j]) if 0 <= i < H and 0 <= j < W else 0.0


@kernel(*_SIGNATURES)
def augment_by_formula(images_MCHW, places_N, examples_N, key, bounds, elastic, augmented_NCHW):
    """Write the augmented images of N examples.

    Parameters
    ----------
    images_MCHW : raw pixels; read.
    places_N : indices of the examples among them; read.
    examples_N : indices of the examples in the training set; random numbers depend on them. Read.
    key : the key of the random numbers; depends on seed and epoch.
    bounds, elastic : see the head of this file.
    augmented_NCHW : raw pixels; overwritten.
    """
    N, C, H, W = augmented_NCHW.shape
    amplitude, spacing = elastic
    A, B = _num_knots(H, elastic), _num_knots(W, elastic)
    uniforms = np.empty(_NUM_AFFINE + 2 * A * B)
    words_4B = np.empty((4, (uniforms.size + 3) // 4), np.uint32)
    knots_2AB = uniforms[_NUM_AFFINE:].reshape(2, A, B)
    middle_i, middle_j = (H - 1) / 2, (W - 1) / 2
    for n in range(N):
        _draw(key, examples_N[n], words_4B, uniforms)
        shift_i, shift_j, cos, sin = _affine_map(uniforms, bounds)
        for i in range(H):
            for j in range(W):
                from_i, from_j = i - middle_i - shift_i, j - middle_j - shift_j
                source_i = middle_i + cos * from_i - sin * from_j
                source_j = middle_j + sin * from_i + cos * from_j
                if amplitude > 0:
                    knot_i, knot_j = int(i / spacing), int(j / spacing)
                    for a in range(4):
                        for b in range(4):
                            weight = _spline(i / spacing - knot_i, a) * _spline(j / spacing - knot_j, b)
                            source_i += amplitude * weight * knots_2AB[0, knot_i + a, knot_j + b]
                            source_j += amplitude * weight * knots_2AB[1, knot_i + a, knot_j + b]
                top, left = math.floor(source_i), math.floor(source_j)
                down, right = source_i - top, source_j - left
                for c in range(C):
                    image_HW = images_MCHW[places_N[n], c]
                    augmented_NCHW[n, c, i, j] = (1 - down) * (
                        (1 - right) * _pixel(image_HW, top, left) + right * _pixel(image_HW, top, left + 1)
                    ) + down * (
                        (1 - right) * _pixel(image_HW, top + 1, left) + right * _pixel(image_HW, top + 1, left + 1)
                    )


@inlined
def _spline_weights(size, spacing, weights_4L, knot_L):
    """Write the four weights of each of `size` pixels, and the first knot that they belong to."""
    for place in range(size):
        knot_L[place] = int(place / spacing)
        for k in range(4):
            weights_4L[k, place] = _spline(place / spacing - knot_L[place], k)


@inlined
def _resample(bordered, source_i, source_j, y_W):
    """Interpolate a row of pixels in an image with a border of zeros: one row and column before it, two after it.

    `source_i` and `source_j` are positions in the bordered image. Positions outside are moved to the border.
    """
    last_i, last_j = np.float32(bordered.shape[0] - 2), np.float32(bordered.shape[1] - 2)
    width, flat = bordered.shape[1], bordered.reshape(-1)
    zero = np.float32(0)
    for j in range(y_W.size):
        at_i, at_j = min(max(source_i[j], zero), last_i), min(max(source_j[j], zero), last_j)
        top, left = np.int32(at_i), np.int32(at_j)
        down, right = at_i - np.float32(top), at_j - np.float32(left)
        corner = np.uint32(top * width + left)
        upper, lower = flat[corner], flat[corner + np.uint32(width)]
        upper += right * (flat[corner + np.uint32(1)] - upper)
        lower += right * (flat[corner + np.uint32(width + 1)] - lower)
        y_W[j] = upper + down * (lower - upper)


@kernel(*_SIGNATURES)
def augment(images_MCHW, places_N, examples_N, key, bounds, elastic, augmented_NCHW):
    """Write the augmented images of N examples; the parameters are those of `augment_by_formula`."""
    N, C, H, W = augmented_NCHW.shape
    amplitude, spacing = np.float32(elastic[0]), elastic[1]
    A, B = _num_knots(H, elastic), _num_knots(W, elastic)
    uniforms = np.empty(_NUM_AFFINE + 2 * A * B)
    words_4B = np.empty((4, (uniforms.size + 3) // 4), np.uint32)
    knots_2AB = uniforms[_NUM_AFFINE:].reshape(2, A, B)
    weights_4H, weights_4W = np.empty((4, H), np.float32), np.empty((4, W), np.float32)
    knot_H, knot_W = np.empty(H, np.int64), np.empty(W, np.int64)
    if amplitude > 0:
        _spline_weights(H, spacing, weights_4H, knot_H)
        _spline_weights(W, spacing, weights_4W, knot_W)
    bordered_CHW = np.zeros((C, H + 3, W + 3), np.float32)
    source_i, source_j = np.empty(W, np.float32), np.empty(W, np.float32)
    column_i, column_j = np.empty(B, np.float32), np.empty(B, np.float32)
    middle_i, middle_j = (H - 1) / 2, (W - 1) / 2
    for n in range(N):
        _draw(key, examples_N[n], words_4B, uniforms)
        shift_i, shift_j, cos, sin = _affine_map(uniforms, bounds)
        for c in range(C):
            for i in range(H):
                for j in range(W):
                    bordered_CHW[c, i + 1, j + 1] = images_MCHW[places_N[n], c, i, j]
        step_i, step_j = np.float32(-sin), np.float32(cos)
        for i in range(H):
            # Position of the row's first pixel in the bordered image.
            from_i, from_j = i - middle_i - shift_i, -middle_j - shift_j
            first_i = np.float32(1 + middle_i + cos * from_i - sin * from_j)
            first_j = np.float32(1 + middle_j + sin * from_i + cos * from_j)
            for j in range(W):
                source_i[j] = first_i + np.float32(j) * step_i
                source_j[j] = first_j + np.float32(j) * step_j
            if amplitude > 0:
                for b in range(B):
                    column_i[b] = column_j[b] = 0
                    for a in range(4):
                        column_i[b] += weights_4H[a, i] * amplitude * np.float32(knots_2AB[0, knot_H[i] + a, b])
                        column_j[b] += weights_4H[a, i] * amplitude * np.float32(knots_2AB[1, knot_H[i] + a, b])
                for j in range(W):
                    for b in range(4):
                        source_i[j] += weights_4W[b, j] * column_i[knot_W[j] + b]
                        source_j[j] += weights_4W[b, j] * column_j[knot_W[j] + b]
            for c in range(C):
                _resample(bordered_CHW[c], source_i, source_j, augmented_NCHW[n, c, i])


# By the value of `training.kernels`.
AUGMENT = {"fast": augment, "loops": augment_by_formula}
