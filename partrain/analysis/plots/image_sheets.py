"""Sheets of images: misclassified examples, hardest examples, examples of a data set.

Shapes: C, H, W channels, rows, columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from partrain.analysis.plots.canvas import GREY, TITLE_SIZE, VERMILION, new_figure
from partrain.analysis.plots.class_labels import BASE_FAMILY, ClassLabels, characters_of
from partrain.analysis.plots.text_layout import (
    POINTS_PER_INCH,
    lines_height,
    text_width,
    widest,
    wrap,
)
from partrain.system.terminal_text import printable

IMAGES_PER_ROW = 5
# In inches: of a sheet of classified images, and the cell of an image in a sheet of a data set.
TITLE_HEIGHT, IMAGE_SIZE, CELL_WIDTH, GAP = 0.45, 1.33, 1.7, 0.1
EXAMPLE_CELL = 0.9
# A sheet of a data set has columns of at most so many classes, which share so many images across.
CLASSES_PER_COLUMN, IMAGES_ACROSS = 25, 12
# In points.
LABEL_SIZE, CAPTION_SIZE = 9, 7
# Of a longer path of a file, the end is shown.
MAX_PATH_LENGTH = 48


def draw_misclassified(
    images: Sequence[NDArray[Any]],
    examples: Sequence[Mapping[str, Any]],
    num_wrong: int,
    subject: str,
    labels: ClassLabels,
) -> Figure:
    """Draw misclassified images, with true and predicted class.

    Parameters
    ----------
    images : (C,H,W) each.
    examples : for each image: index, label, prediction and probability; file, if the image is one.
    num_wrong : the total number of misclassified examples.
    subject : the examples that were evaluated, e.g. "10,000 test examples".
    labels : the labels of the classes.
    """
    errors = "The only error" if num_wrong == 1 else f"The most confident of {num_wrong:,} errors"
    title = f"{errors if images else 'No errors'} on {subject}"
    return _draw_sheet(
        images, examples, title, labels, lambda example: _file_of(example, labels) or f"index {example['index']}"
    )


def _file_of(example: Mapping[str, Any], labels: ClassLabels) -> str | None:
    """Return the end of the path of an example's file; None if it is no file, or no font can draw the path."""
    path = printable(str(example.get("file", "")))
    if not path or not all(any(c in characters_of(family) for family in labels.families) for c in path):
        return None
    return path if len(path) <= MAX_PATH_LENGTH else "…" + path[1 - MAX_PATH_LENGTH :]


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
        name = _file_of(example, labels) or example["index"]
        return f"{name}: loss {example['loss']:.3g}, |g| {example['gradient_norm']:.3g}{flipped}"

    return _draw_sheet(images, examples, title, labels, caption)


def _draw_sheet(
    images: Sequence[NDArray[Any]],
    examples: Sequence[Mapping[str, Any]],
    title: str,
    labels: ClassLabels,
    caption: Callable[[Mapping[str, Any]], str],
) -> Figure:
    """Draw images in rows, with true and predicted class above each, and a caption below.

    The positions are fixed, and all images have the same size: rows become higher if a text takes several lines.
    """

    def wrapped(text: str, size: float) -> list[str]:
        return wrap(text, CELL_WIDTH - GAP, size, labels.families)

    truths = [wrapped(f"true: {labels.texts[example['label']]}", LABEL_SIZE) for example in examples]
    predictions = [
        wrapped(f"predicted: {labels.texts[example['prediction']]} ({_percent(example['probability'])})", LABEL_SIZE)
        for example in examples
    ]
    captions = [wrapped(caption(example), CAPTION_SIZE) for example in examples]
    above = lines_height(
        max((len(a) + len(b) for a, b in zip(truths, predictions, strict=True)), default=0), LABEL_SIZE
    )
    below = lines_height(max(map(len, captions), default=0), CAPTION_SIZE)
    cell_height = above + IMAGE_SIZE + below + 2 * GAP
    num_rows = -(-len(images) // IMAGES_PER_ROW)
    width, height = IMAGES_PER_ROW * CELL_WIDTH, TITLE_HEIGHT + cell_height * num_rows
    figure = new_figure(width, height)
    figure.set_layout_engine("none")
    figure.text(0.01, 1 - GAP / height, title, ha="left", va="top", fontsize=TITLE_SIZE)
    for index, (image, example) in enumerate(zip(images, examples, strict=True)):
        row, column = divmod(index, IMAGES_PER_ROW)
        left = (column + 0.5) * CELL_WIDTH - IMAGE_SIZE / 2
        bottom = height - TITLE_HEIGHT - row * cell_height - above - IMAGE_SIZE
        axes = figure.add_axes((left / width, bottom / height, IMAGE_SIZE / width, IMAGE_SIZE / height))
        axes.set_axis_off()
        axes.imshow(to_displayable(image), cmap="gray", interpolation="nearest")
        colour = VERMILION if example["label"] != example["prediction"] else GREY
        predicted_height = POINTS_PER_INCH * lines_height(len(predictions[index]), LABEL_SIZE)
        for lines, text_colour, size, position, points, alignment in (
            (truths[index], GREY, LABEL_SIZE, (0.5, 1), 4 + predicted_height, "bottom"),
            (predictions[index], colour, LABEL_SIZE, (0.5, 1), 4, "bottom"),
            (captions[index], GREY, CAPTION_SIZE, (0.5, 0), -4, "top"),
        ):
            axes.annotate(
                "\n".join(lines), position, (0, points), xycoords="axes fraction", textcoords="offset points",
                ha="center", va=alignment, color=text_colour, fontsize=size,
                fontfamily=list(labels.families), parse_math=False,
            )  # fmt: skip
    return figure


def examples_per_class(num_classes: int) -> int:
    """Return how many examples of each class `draw_examples` has room for."""
    return IMAGES_ACROSS // -(-num_classes // CLASSES_PER_COLUMN)


def draw_examples(rows: Sequence[Sequence[NDArray[Any]]], labels: ClassLabels, name: str, num_more: int) -> Figure:
    """Draw examples of a data set, one row per class; many classes stand in several columns.

    Parameters
    ----------
    rows : for each class some images (C,H,W), see `examples_per_class`.
    labels : the labels of these classes.
    name : the name of the data set.
    num_more : the number of classes that are not drawn.
    """
    title = f"{name}: training examples of each class" + (f" ({num_more:,} more classes)" if num_more else "")
    num_columns = -(-len(rows) // CLASSES_PER_COLUMN)
    num_rows = -(-len(rows) // num_columns)
    label_width = 3 * GAP + widest(labels.texts[: len(rows)], LABEL_SIZE, labels.families)
    column_width = label_width + max(1, *map(len, rows)) * EXAMPLE_CELL
    width = max(num_columns * column_width, 2 * GAP + text_width(title, TITLE_SIZE, (BASE_FAMILY,)))
    height = TITLE_HEIGHT + num_rows * EXAMPLE_CELL
    figure = new_figure(width, height)
    figure.set_layout_engine("none")
    figure.text(GAP / width, 1 - GAP / height, title, ha="left", va="top", fontsize=TITLE_SIZE)
    size = EXAMPLE_CELL - GAP
    for number, images in enumerate(rows):
        column, row = divmod(number, num_rows)
        start = column * column_width + label_width
        bottom = height - TITLE_HEIGHT - row * EXAMPLE_CELL - size
        figure.text(
            (start - GAP) / width, (bottom + size / 2) / height, labels.texts[number], ha="right", va="center",
            fontsize=LABEL_SIZE, fontfamily=list(labels.families), parse_math=False,
        )  # fmt: skip
        for place, image in enumerate(images):
            left = start + place * EXAMPLE_CELL
            axes = figure.add_axes((left / width, bottom / height, size / width, size / height))
            axes.set_axis_off()
            axes.imshow(to_displayable(image), cmap="gray", interpolation="nearest")
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
