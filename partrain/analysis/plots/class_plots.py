"""Results per class: recall, and the confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from partrain.analysis.plots.accuracy_axis import AccuracyScale
from partrain.analysis.plots.canvas import BLUE, TITLE_SIZE, new_axes, new_figure, subject
from partrain.analysis.plots.class_labels import BASE_FAMILY, ClassLabels
from partrain.analysis.plots.text_layout import POINTS_PER_INCH, text_width, widest

# With more classes, only the lowest recalls are drawn; this is also the number of most frequent confusions.
MAX_BARS = 30
# Larger matrices have no room for numbers, or not even for names.
MAX_NUMBERED, MAX_NAMED = 20, 100
# Text of the axes' ticks, in points.
_LABEL_SIZE = 11
# Inches that a figure needs beside its plot and the labels of the classes.
_MARGIN = 0.7


def draw_recall(report: Mapping[str, Any], labels: ClassLabels) -> Figure:
    """Draw the recall of each class as a point; with many classes, only the lowest recalls.

    Parameters
    ----------
    report : an evaluation, see `classification_report`; with its split.
    labels : the labels of the classes.
    """
    recall = report["recall"]
    known = [k for k in range(len(recall)) if recall[k] is not None]
    shown, title = list(range(len(recall))), "Recall of each class"
    if len(recall) > MAX_BARS:
        shown = sorted(known, key=lambda k: recall[k])[:MAX_BARS]
        title = f"The {len(shown)} lowest recalls of {len(recall):,} classes"
    figure, axes = _new_rows(f"{title} on {_subject(report)}", "recall", [labels.texts[k] for k in shown], labels)
    positions = np.arange(len(shown))
    scale = AccuracyScale.of([recall[k] for k in shown if recall[k] is not None] or [1])
    # The right margin has room for the numbers.
    scale.apply(axes, "x", (0.05, 0.2))
    axes.plot(
        [np.nan if recall[k] is None else recall[k] for k in shown], positions, "o", color=BLUE, markersize=8
    )  # fmt: skip
    for position, k in zip(positions.tolist(), shown, strict=True):
        text = "no examples" if recall[k] is None else f"{recall[k]:.2%}"
        place = scale.low if recall[k] is None else recall[k]
        axes.annotate(text, (place, position), xytext=(8, 0), textcoords="offset points", va="center")
    return figure


def draw_confusion(report: Mapping[str, Any], labels: ClassLabels) -> Figure | None:
    """Draw the confusion matrix; with very many classes, the most frequent confusions.

    Parameters
    ----------
    report : an evaluation, see `classification_report`; with its split.
    labels : the labels of the classes.

    Returns
    -------
    The figure; None if the report has no confusion matrix.
    """
    if report["confusion"] is None:
        return None
    counts_EE = np.array(report["confusion"], np.int64)
    if len(counts_EE) > MAX_NAMED:
        return _draw_most_frequent(counts_EE, _subject(report), labels)
    return _draw_matrix(counts_EE, _subject(report), labels)


def _draw_matrix(counts_EE: NDArray[np.int64], examples: str, labels: ClassLabels) -> Figure:
    """Draw the matrix, with the numbers of examples on a logarithmic colour scale."""
    size = len(counts_EE)
    inches = max(3.0, 0.52 * size) if size <= MAX_NUMBERED else max(7.0, 0.115 * size)
    font_size = _LABEL_SIZE if size <= MAX_NUMBERED else min(8.0, 0.8 * POINTS_PER_INCH * inches / size)
    label_width = widest(labels.texts, font_size, labels.families)
    rotated = label_width > inches / size
    title = f"Confusion matrix of {examples}"
    # The colour bar takes 1.3 inches.
    width = max(inches + label_width + _MARGIN + 1.3, 0.4 + text_width(title, TITLE_SIZE, (BASE_FAMILY,)))
    figure = new_figure(width, inches + (label_width if rotated else 0.3) + _MARGIN + 0.4)
    figure.suptitle(title, x=0.02, ha="left", fontsize=TITLE_SIZE)
    axes = new_axes(figure, "", "predicted class", "true class")
    axes.grid(False)
    # On a linear scale the few errors would be invisible beside the correct predictions.
    highest = max(10, int(counts_EE.max()))
    norm = LogNorm(vmin=1, vmax=highest)
    shown = axes.imshow(np.ma.masked_equal(counts_EE, 0), cmap=_visible_blues(), norm=norm, interpolation="nearest")
    figure.colorbar(shown, ax=axes, shrink=0.8, label="examples", ticks=_round_numbers(highest), format="{x:,.0f}")
    if size <= MAX_NUMBERED:
        for i, j in np.argwhere(counts_EE).tolist():
            colour = "white" if norm(counts_EE[i, j]) > 0.5 else "black"
            axes.text(j, i, str(counts_EE[i, j]), ha="center", va="center", fontsize=9, color=colour)
    font: dict[str, Any] = {"fontfamily": list(labels.families), "parse_math": False, "fontsize": font_size}
    axes.set_xticks(range(size), labels.texts, rotation=90 if rotated else 0, **font)
    axes.set_yticks(range(size), labels.texts, **font)
    return figure


def _round_numbers(highest: int) -> list[int]:
    """Return 1, 2, 5, 10, … up to a number; only powers of ten if there are many."""
    digits = "125" if highest < 10_000 else "1"
    numbers = (int(digit + "0" * num_zeros) for num_zeros in range(len(str(highest))) for digit in digits)
    return [number for number in numbers if number <= highest]


def _visible_blues() -> Colormap:
    """Return matplotlib's map "Blues" without its lightest part: a single example differs from the white ground."""
    return ListedColormap(colormaps["Blues"](np.linspace(0.25, 1, 256)))


def _draw_most_frequent(counts_EE: NDArray[np.int64], examples: str, labels: ClassLabels) -> Figure:
    """Draw the most frequent pairs of true and predicted class as bars: the cells of the matrix would be too small."""
    errors_EE = counts_EE * ~np.eye(len(counts_EE), dtype=bool)
    order = np.argsort(-errors_EE, axis=None, kind="stable")[:MAX_BARS]
    pairs = [divmod(place, len(counts_EE)) for place in order.tolist()]
    pairs = [pair for pair in pairs if errors_EE[pair]]
    texts = [f"{labels.texts[truth]} → {labels.texts[prediction]}" for truth, prediction in pairs]
    title = f"The {len(pairs)} most frequent confusions of {len(counts_EE):,} classes" if pairs else "No errors"
    figure, axes = _new_rows(f"{title} on {examples}", "examples", texts, labels)
    axes.grid(False, axis="y")
    positions = np.arange(len(pairs))
    numbers = [int(errors_EE[pair]) for pair in pairs]
    axes.barh(positions, numbers, color=BLUE, height=0.7)
    for position, number in zip(positions.tolist(), numbers, strict=True):
        axes.annotate(f"{number:,}", (number, position), xytext=(5, 0), textcoords="offset points", va="center")
    axes.set_xlim(0, 1.12 * max(numbers, default=1))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return figure


def _new_rows(title: str, x_label: str, texts: Sequence[str], labels: ClassLabels) -> tuple[Figure, Axes]:
    """Return a figure, and its axes with a labelled row for each text, the first at the top."""
    label_width = widest(texts, _LABEL_SIZE, labels.families)
    width = max(6 + _MARGIN + label_width, 0.4 + text_width(title, TITLE_SIZE, (BASE_FAMILY,)))
    figure = new_figure(width, max(2.5, 1.4 + 0.36 * len(texts)))
    # Above the labels too, because a title above the plot alone would have to be shorter.
    figure.suptitle(title, x=0.02, ha="left", fontsize=TITLE_SIZE)
    axes = new_axes(figure, "", x_label, "")
    axes.set_yticks(range(len(texts)), texts, fontfamily=list(labels.families), parse_math=False)
    axes.set_ylim(max(1, len(texts)) - 0.4, -0.6)
    return figure, axes


def _subject(report: Mapping[str, Any]) -> str:
    return subject(report["num_examples"], report["split"])
