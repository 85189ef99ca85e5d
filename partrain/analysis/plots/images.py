"""What a network sees: the filters of its first convolution, and images that it took for something else.

Shapes: C, H, W channels, rows, columns; F filters; R, S filter rows, columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from partrain.analysis.plots.canvas import GREY, VERMILION, new_figure
from partrain.analysis.plots.class_labels import ClassLabels

# At most so many filters, in rows of so many; and channels of each, where there are several.
MAX_FILTERS, FILTERS_A_ROW = 64, 8
MAX_CHANNELS = 8
IMAGES_A_ROW = 5


def draw_filters(weight_FCRS: NDArray[Any]) -> Figure:
    """Draw the filters of a convolution, all on one scale around 0.

    Filters of one channel stand in rows, and so do those of three, as colours: grey is 0, and what is red, green or
    blue has larger weights there. Of other numbers of channels each filter is a row, with a picture for each channel.
    """
    in_colour = weight_FCRS.shape[1] == 3
    C = 1 if in_colour else min(weight_FCRS.shape[1], MAX_CHANNELS)
    F = min(weight_FCRS.shape[0], MAX_FILTERS if C == 1 else MAX_FILTERS // MAX_CHANNELS)
    num, columns = F * C, C if C > 1 else min(F, FILTERS_A_ROW)
    figure = new_figure(max(5.5, 1.5 + 0.95 * columns), 1.1 + 1.0 * -(-num // columns))
    title = "Filters of the first convolution" + (", by channel" if C > 1 else "")
    if len(weight_FCRS) != F or (not in_colour and weight_FCRS.shape[1] != C):
        title += " (the first ones)"
    figure.suptitle(title, x=0.01, ha="left", fontsize=13)
    axes = figure.add_subplot()
    axes.set_axis_off()
    limit = float(np.abs(weight_FCRS).max()) or 1.0
    if in_colour:
        tiles = [0.5 + weight_CRS.transpose(1, 2, 0) / (2 * limit) for weight_CRS in weight_FCRS[:F]]
    else:
        tiles = [weight_FCRS[divmod(place, C)] for place in range(num)]
    # One picture of all of them, since so many axes would take seconds to lay out.
    mosaic, corners = _tile(tiles, columns)
    if in_colour:
        axes.imshow(np.where(np.isnan(mosaic), 1, mosaic.clip(0, 1)), interpolation="nearest")
        note = f"red, green and blue are the weights of the channels: grey is 0, full and none are ±{limit:.2g}"
        axes.annotate(note, (0, 0), (0, -6), "axes fraction", "offset points", va="top", fontsize=8)
    else:
        shown = axes.imshow(mosaic, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        figure.colorbar(shown, ax=axes, shrink=0.9, label="weight", pad=0.02)
    for place, (row, column) in enumerate(corners):
        f, c = divmod(place, C)
        text = f"{f + 1}" if C == 1 else f"{f + 1}, channel {c + 1}"
        x = column + (weight_FCRS.shape[3] - 1) / 2
        axes.annotate(text, (x, row - 0.5), (0, 2), textcoords="offset points", ha="center", fontsize=7)
    return figure


def _tile(tiles: Sequence[NDArray[Any]], columns: int) -> tuple[NDArray[Any], list[tuple[int, int]]]:
    """Return tiles (R,S), or (R,S,3), side by side with NaN between them, and each one's upper left corner."""
    R, S = tiles[0].shape[:2]
    gap = max(1, round(R / 5))
    corners = [((R + gap) * (k // columns), (S + gap) * (k % columns)) for k in range(len(tiles))]
    mosaic = np.full((corners[-1][0] + R, (S + gap) * columns - gap, *tiles[0].shape[2:]), np.nan)
    for tile, (row, column) in zip(tiles, corners, strict=True):
        mosaic[row : row + R, column : column + S] = tile
    return mosaic, corners


def draw_misclassified(
    images: Sequence[NDArray[Any]],
    examples: Sequence[Mapping[str, Any]],
    num_wrong: int,
    what: str,
    labels: ClassLabels,
) -> Figure:
    """Draw images that were classified wrongly, with truth and prediction.

    Parameters
    ----------
    images : (C,H,W) each.
    examples : of each image index, label, prediction and probability.
    num_wrong : how many were classified wrongly in all.
    what : what the examples are of, e.g. "10,000 test examples".
    labels : of the classes.
    """
    title = f"The most confidently wrong of {num_wrong:,} errors, {what}" if images else f"No errors, {what}"
    return _draw_sheet(images, examples, title, labels, lambda example: f"index {example['index']}")


def draw_hardest(
    images: Sequence[NDArray[Any]], examples: Sequence[Mapping[str, Any]], title: str, labels: ClassLabels
) -> Figure:
    """Draw the examples that a network finds hardest, with label, prediction, loss and norm of the gradient.

    Parameters
    ----------
    images : (C,H,W) each.
    examples : of each image index, label, prediction, probability, loss, gradient_norm, and flipped where labels were.
    title : what stands above.
    labels : of the classes.
    """

    def below(example: Mapping[str, Any]) -> str:
        flipped = ", flipped" if example.get("flipped") else ""
        return f"{example['index']}: {example['loss']:.3g}, |g| {example['gradient_norm']:.3g}{flipped}"

    return _draw_sheet(images, examples, title, labels, below)


def _draw_sheet(
    images: Sequence[NDArray[Any]],
    examples: Sequence[Mapping[str, Any]],
    title: str,
    labels: ClassLabels,
    below: Callable[[Mapping[str, Any]], str],
) -> Figure:
    """Draw images in rows, with truth and prediction above each, and what `below` says."""
    rows = max(1, -(-len(images) // IMAGES_A_ROW))
    figure = new_figure(8.5, 0.9 + (1.9 if images else 0.6) * rows)
    figure.suptitle(title, x=0.01, ha="left", fontsize=13)
    layout = figure.get_layout_engine()
    assert isinstance(layout, ConstrainedLayoutEngine)
    layout.set(h_pad=0.07)
    grid = figure.subplots(rows, IMAGES_A_ROW, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, image, example in zip(grid.flat, images, examples, strict=False):
        axes.imshow(_as_picture(image), cmap="gray", interpolation="nearest")
        truth, prediction = labels.texts[example["label"]], labels.texts[example["prediction"]]
        said = f"said: {prediction} ({_percent(example['probability'])})"
        for text, colour, size, place, points in (
            (f"truth: {truth}", GREY, 9, (0.5, 1), 17),
            (said, VERMILION if example["label"] != example["prediction"] else GREY, 9, (0.5, 1), 4),
            (below(example), GREY, 7, (0.5, 0), -11),
        ):
            axes.annotate(
                text, place, (0, points), xycoords="axes fraction", textcoords="offset points", ha="center",
                color=colour, fontsize=size, fontfamily=list(labels.families), parse_math=False,
            )  # fmt: skip
    return figure


def draw_examples(rows: Sequence[Sequence[NDArray[Any]]], labels: ClassLabels, name: str, num_more: int) -> Figure:
    """Draw examples of a data set, a row for each class.

    Parameters
    ----------
    rows : of each class some images (C,H,W).
    labels : of these classes.
    name : of the data set.
    num_more : how many classes have no row.
    """
    columns = max(1, *map(len, rows))
    figure = new_figure(1.6 + 0.75 * columns, 0.7 + 0.75 * len(rows))
    title = f"{name}: training examples of each class" + (f" ({num_more:,} more classes)" if num_more else "")
    figure.suptitle(title, x=0.01, ha="left", fontsize=13)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for row, images in enumerate(rows):
        for axes, image in zip(grid[row], images, strict=False):
            axes.imshow(_as_picture(image), cmap="gray", interpolation="nearest")
        grid[row, 0].annotate(
            labels.texts[row], (0, 0.5), (-8, 0), "axes fraction", "offset points", ha="right", va="center",
            fontsize=9, fontfamily=list(labels.families), parse_math=False,
        )  # fmt: skip
    return figure


def _as_picture(image_CHW: NDArray[Any]) -> NDArray[np.float64]:
    """Return an image as (H,W) or (H,W,3), from 0 to 1; of other than 1 or 3 channels their mean."""
    picture = image_CHW.astype(np.float64)
    if image_CHW.dtype == np.uint8:
        picture /= 255
    else:
        low, high = float(picture.min()), float(picture.max())
        picture = (picture - low) / (high - low if high > low else 1)
    return picture.transpose(1, 2, 0) if len(picture) == 3 else picture.mean(axis=0)


def _percent(probability: float | None) -> str:
    return "?" if probability is None else f"{probability:.1%}"
