"""Sheets of images: misclassified examples, hardest examples, examples of a data set.

Shapes: C, H, W channels, rows, columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from partrain.analysis.plots.canvas import GREY, VERMILION, new_figure
from partrain.analysis.plots.class_labels import ClassLabels
from partrain.system.terminal_text import num_columns

IMAGES_PER_ROW = 5
# Of a sheet of classified images, in inches: a cell has two lines of labels, an image and a caption.
TITLE_HEIGHT, LABEL_HEIGHT, IMAGE_SIZE = 0.45, 0.45, 1.33
CELL_WIDTH, CELL_HEIGHT = 1.7, 2.0


def draw_misclassified(
    images: Sequence[NDArray[Any]],
    examples: Sequence[Mapping[str, Any]],
    num_wrong: int,
    split: str,
    labels: ClassLabels,
) -> Figure:
    """Draw misclassified images, with true and predicted class.

    Parameters
    ----------
    images : (C,H,W) each.
    examples : for each image: index, label, prediction and probability.
    num_wrong : the total number of misclassified examples.
    split : the examples that were evaluated, e.g. "10,000 test examples".
    labels : the labels of the classes.
    """
    title = f"Most confident of {num_wrong:,} errors, {split}" if images else f"No errors, {split}"
    return _draw_sheet(images, examples, title, labels, lambda example: f"index {example['index']}")


def draw_hardest(
    images: Sequence[NDArray[Any]], examples: Sequence[Mapping[str, Any]], title: str, labels: ClassLabels
) -> Figure:
    """Draw the hardest examples, with label, prediction, loss and gradient norm.

    Parameters
    ----------
    images : (C,H,W) each.
    examples : for each image: index, label, prediction, probability, loss and gradient_norm; flipped, if label noise
        was added.
    title : the title of the sheet.
    labels : the labels of the classes.
    """

    def caption(example: Mapping[str, Any]) -> str:
        flipped = ", flipped" if example.get("flipped") else ""
        return f"{example['index']}: loss {example['loss']:.3g}, |g| {example['gradient_norm']:.3g}{flipped}"

    return _draw_sheet(images, examples, title, labels, caption)


def _draw_sheet(
    images: Sequence[NDArray[Any]],
    examples: Sequence[Mapping[str, Any]],
    title: str,
    labels: ClassLabels,
    caption: Callable[[Mapping[str, Any]], str],
) -> Figure:
    """Draw images in rows, with true and predicted class above each, and a caption below."""
    num_rows = max(1, -(-len(images) // IMAGES_PER_ROW))
    width, height = IMAGES_PER_ROW * CELL_WIDTH, TITLE_HEIGHT + (CELL_HEIGHT if images else 0) * num_rows
    figure = new_figure(width, height)
    # Fixed positions: the constrained layout gives up if a label is wider than its image.
    figure.set_layout_engine("none")
    figure.text(0.01, 1 - 0.1 / height, title, ha="left", va="top", fontsize=13)
    for index, (image, example) in enumerate(zip(images, examples, strict=True)):
        row, column = divmod(index, IMAGES_PER_ROW)
        left = (column + 0.5) * CELL_WIDTH - IMAGE_SIZE / 2
        bottom = height - TITLE_HEIGHT - row * CELL_HEIGHT - LABEL_HEIGHT - IMAGE_SIZE
        axes = figure.add_axes((left / width, bottom / height, IMAGE_SIZE / width, IMAGE_SIZE / height))
        axes.set_axis_off()
        axes.imshow(to_displayable(image), cmap="gray", interpolation="nearest")
        truth, prediction = labels.texts[example["label"]], labels.texts[example["prediction"]]
        predicted = f"predicted: {prediction} ({_percent(example['probability'])})"
        colour = VERMILION if example["label"] != example["prediction"] else GREY
        for text, text_colour, size, position, points in (
            (f"true: {truth}", GREY, 9, (0.5, 1), 17),
            (predicted, colour, 9, (0.5, 1), 4),
            (caption(example), GREY, 7, (0.5, 0), -11),
        ):
            axes.annotate(
                text, position, (0, points), xycoords="axes fraction", textcoords="offset points", ha="center",
                color=text_colour, fontsize=_fitting_size(text, size), fontfamily=list(labels.families),
                parse_math=False,
            )  # fmt: skip
    return figure


def _fitting_size(text: str, largest: float) -> float:
    """Return the font size, in points, at which a text fits the width of a cell: `largest`, or less."""
    width_per_point = 0.58 * num_columns(text)  # a typical character is 0.58 times as wide as the font size
    return min(largest, 72 * CELL_WIDTH / max(1.0, width_per_point))


def draw_examples(rows: Sequence[Sequence[NDArray[Any]]], labels: ClassLabels, name: str, num_more: int) -> Figure:
    """Draw examples of a data set, one row per class.

    Parameters
    ----------
    rows : for each class some images (C,H,W).
    labels : the labels of these classes.
    name : the name of the data set.
    num_more : the number of classes that are not drawn.
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
            axes.imshow(to_displayable(image), cmap="gray", interpolation="nearest")
        grid[row, 0].annotate(
            labels.texts[row], (0, 0.5), (-8, 0), "axes fraction", "offset points", ha="right", va="center",
            fontsize=9, fontfamily=list(labels.families), parse_math=False,
        )  # fmt: skip
    return figure


def to_displayable(image_CHW: NDArray[Any]) -> NDArray[np.float64]:
    """Return an image as (H,W) or (H,W,3) with values from 0 to 1; channels are averaged unless there are three."""
    picture = image_CHW.astype(np.float64)
    if image_CHW.dtype == np.uint8:
        picture /= 255
    else:
        low, high = float(picture.min()), float(picture.max())
        picture = (picture - low) / (high - low if high > low else 1)
    return picture.transpose(1, 2, 0) if len(picture) == 3 else picture.mean(axis=0)


def _percent(probability: float | None) -> str:
    return "?" if probability is None else f"{probability:.1%}"
