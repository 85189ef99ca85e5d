"""The filters of a network's first convolution.

Shapes: C input channels; F filters; R, S filter rows, columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from partrain.analysis.plots.canvas import new_figure

# The largest numbers of filters and channels that are drawn, and the filters per row.
MAX_FILTERS, FILTERS_PER_ROW = 64, 8
MAX_CHANNELS = 8


def draw_filters(weight_FCRS: NDArray[Any]) -> Figure:
    """Draw the filters of a convolution, all on the same scale, symmetric around 0.

    With one input channel, or three, each filter is one image; three channels are drawn as red, green and blue, with
    grey for 0. With other numbers of channels, each filter is a row with one image per channel.

    Parameters
    ----------
    weight_FCRS : the weights.
    """
    in_colour = weight_FCRS.shape[1] == 3
    C = 1 if in_colour else min(weight_FCRS.shape[1], MAX_CHANNELS)
    F = min(weight_FCRS.shape[0], MAX_FILTERS if C == 1 else MAX_FILTERS // MAX_CHANNELS)
    num, columns = F * C, C if C > 1 else min(F, FILTERS_PER_ROW)
    figure = new_figure(max(5.5, 1.5 + 0.95 * columns), 1.1 + 1.0 * -(-num // columns))
    title = "Filters of the first convolution" + (", by channel" if C > 1 else "")
    if len(weight_FCRS) != F or (not in_colour and weight_FCRS.shape[1] != C):
        title += f" (first {F} of {len(weight_FCRS)})" if len(weight_FCRS) > F else f" (first {C} channels)"
    figure.suptitle(title, x=0.01, ha="left", fontsize=13)
    axes = figure.add_subplot()
    axes.set_axis_off()
    limit = float(np.abs(weight_FCRS).max()) or 1.0
    if in_colour:
        tiles = [0.5 + weight_CRS.transpose(1, 2, 0) / (2 * limit) for weight_CRS in weight_FCRS[:F]]
    else:
        tiles = [weight_FCRS[divmod(index, C)] for index in range(num)]
    # One image of all filters: matplotlib would take seconds to lay out axes for each.
    mosaic, corners = _tile(tiles, columns)
    if in_colour:
        axes.imshow(np.where(np.isnan(mosaic), 1, mosaic.clip(0, 1)), interpolation="nearest")
        note = f"red, green and blue show the weights of the three channels: grey is 0, the extremes are ±{limit:.2g}"
        axes.annotate(note, (0, 0), (0, -6), "axes fraction", "offset points", va="top", fontsize=8)
    else:
        shown = axes.imshow(mosaic, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        figure.colorbar(shown, ax=axes, shrink=0.9, label="weight", pad=0.02)
    for index, (row, column) in enumerate(corners):
        f, c = divmod(index, C)
        text = f"{f + 1}" if C == 1 else f"{f + 1}, channel {c + 1}"
        x = column + (weight_FCRS.shape[3] - 1) / 2
        axes.annotate(text, (x, row - 0.5), (0, 2), textcoords="offset points", ha="center", fontsize=7)
    return figure


def _tile(tiles: Sequence[NDArray[Any]], columns: int) -> tuple[NDArray[Any], list[tuple[int, int]]]:
    """Return tiles (R,S) or (R,S,3) as one image with gaps of NaN, and the upper left corner of each tile."""
    R, S = tiles[0].shape[:2]
    gap = max(1, round(R / 5))
    corners = [((R + gap) * (k // columns), (S + gap) * (k % columns)) for k in range(len(tiles))]
    mosaic = np.full((corners[-1][0] + R, (S + gap) * columns - gap, *tiles[0].shape[2:]), np.nan)
    for tile, (row, column) in zip(tiles, corners, strict=True):
        mosaic[row : row + R, column : column + S] = tile
    return mosaic, corners
