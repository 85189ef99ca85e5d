"""Draws line segments with a round pen.

Shapes: N images; H, W rows, columns; S segments in an image.
"""

from __future__ import annotations

import math

import numpy as np

from partrain.kernels.compiler.flags import kernel


# In float64, whose operations are rounded exactly as IEEE 754 defines, so the images do not depend on the processor.
@kernel(
    "void(float64[:,:,::1], float64[::1], float64[::1], float64[::1], float64[::1], uint8[:,:,::1], uint8[:,:,::1])"
)
def draw_strokes(segments_NS4, radius_N, softness_N, ink_N, noise_level_N, noise_NHW, images_NHW):
    """Draw the segments of each image, with soft edges and noise.

    coverage = clip(1/2 + (radius - d) / softness, 0, 1),  d the distance from the pixel's centre to the
    nearest segment;  image = clip(ink * coverage + noise_level * (noise / 127.5 - 1), 0, 255), rounded.

    Parameters
    ----------
    segments_NS4 : float64. The ends (x0, y0, x1, y1) in pixels; the pixel in row h and column w has its
        centre at (w, h). A segment may have length 0. Read.
    radius_N : float64. Half the stroke's width, in pixels; read.
    softness_N : float64, above 0. The width of the edge, from full to no coverage, in pixels; read.
    ink_N : float64. The grey level of full coverage; read.
    noise_level_N : float64. The largest change that noise makes to a grey level; read.
    noise_NHW : uint8. Random bytes; read.
    images_NHW : uint8. The images, 0 black to 255 white; overwritten.
    """
    num_images, num_rows, num_columns = images_NHW.shape
    squared_HW = np.empty((num_rows, num_columns))
    for n in range(num_images):
        # Pixels further away than this are not covered, so only the box around each segment is visited.
        reach = radius_N[n] + 0.5 * softness_N[n]
        squared_HW[:, :] = reach * reach
        for s in range(segments_NS4.shape[1]):
            x0, y0, x1, y1 = segments_NS4[n, s]
            along_x = x1 - x0
            along_y = y1 - y0
            squared_length = along_x * along_x + along_y * along_y
            first_row = max(0, math.ceil(min(y0, y1) - reach))
            last_row = min(num_rows - 1, math.floor(max(y0, y1) + reach))
            first_column = max(0, math.ceil(min(x0, x1) - reach))
            last_column = min(num_columns - 1, math.floor(max(x0, x1) + reach))
            for h in range(first_row, last_row + 1):
                for w in range(first_column, last_column + 1):
                    # The nearest point of the segment is its start plus `position` times its direction.
                    position = 0.0
                    if squared_length > 0.0:
                        position = ((w - x0) * along_x + (h - y0) * along_y) / squared_length
                        position = min(1.0, max(0.0, position))
                    to_x = x0 + position * along_x - w
                    to_y = y0 + position * along_y - h
                    squared_HW[h, w] = min(squared_HW[h, w], to_x * to_x + to_y * to_y)
        for h in range(num_rows):
            for w in range(num_columns):
                coverage = 0.5 + (radius_N[n] - math.sqrt(squared_HW[h, w])) / softness_N[n]
                coverage = min(1.0, max(0.0, coverage))
                grey = ink_N[n] * coverage + noise_level_N[n] * (noise_NHW[n, h, w] / 127.5 - 1.0)
                images_NHW[n, h, w] = int(min(255.0, max(0.0, grey)) + 0.5)
