"""Results per class: recall as bars, and the confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from partrain.analysis.plots.canvas import BLUE, new_axes, new_figure
from partrain.analysis.plots.class_labels import ClassLabels

# With more classes, only the lowest recalls are drawn.
MAX_BARS = 30
# Larger matrices have no room for numbers, or not even for names.
MAX_NUMBERED, MAX_NAMED = 20, 50


def draw_recall(report: Mapping[str, Any], labels: ClassLabels) -> Figure:
    """Draw the recall of each class as a bar; with many classes, only the lowest recalls.

    Parameters
    ----------
    report : an evaluation, see `classification_report`; with its split.
    labels : the labels of the classes.
    """
    recall = report["recall"]
    known = [k for k in range(len(recall)) if recall[k] is not None]
    shown, title = list(range(len(recall))), "Recall per class"
    if len(recall) > MAX_BARS:
        shown = sorted(sorted(known, key=lambda k: recall[k])[:MAX_BARS], key=lambda k: recall[k])
        title = f"The {len(shown)} lowest recalls of {len(recall)} classes"
    figure = new_figure(height=max(2.5, 1.4 + 0.36 * len(shown)))
    axes = new_axes(figure, f"{title}, {_subject(report)}", "recall", "class")
    axes.grid(False, axis="y")
    positions = np.arange(len(shown))
    axes.barh(positions, [recall[k] or 0 for k in shown], color=BLUE, height=0.7)
    for position, k in zip(positions.tolist(), shown, strict=True):
        text = "no examples" if recall[k] is None else f"{recall[k]:.2%}"
        axes.annotate(text, (recall[k] or 0, position), xytext=(5, 0), textcoords="offset points", va="center")
    axes.set_yticks(positions, [labels.texts[k] for k in shown], fontfamily=list(labels.families), parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    return figure


def draw_confusion(report: Mapping[str, Any], labels: ClassLabels) -> Figure | None:
    """Draw the confusion matrix, with the numbers of examples on a logarithmic colour scale.

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
    size = len(counts_EE)
    inches = max(4.5, 0.52 * size) if size <= MAX_NUMBERED else 7.0
    figure = new_figure(inches + 2.3, inches + 1.5)
    axes = new_axes(figure, f"Confusion matrix, {_subject(report)}", "predicted class", "true class")
    axes.grid(False)
    # On a linear scale the few errors would be invisible beside the correct predictions.
    norm = LogNorm(vmin=1, vmax=max(10, int(counts_EE.max())))
    shown = axes.imshow(np.ma.masked_equal(counts_EE, 0), cmap="Blues", norm=norm, interpolation="nearest")
    figure.colorbar(shown, ax=axes, shrink=0.8, label="examples", format="{x:g}")
    if size <= MAX_NUMBERED:
        for i, j in np.argwhere(counts_EE).tolist():
            colour = "white" if norm(counts_EE[i, j]) > 0.6 else "black"
            axes.text(j, i, str(counts_EE[i, j]), ha="center", va="center", fontsize=9, color=colour)
    if size <= MAX_NAMED:
        rotation = 90 if max(map(len, labels.texts)) > 3 else 0
        font: dict[str, Any] = {"fontfamily": list(labels.families), "parse_math": False}
        font["fontsize"] = 11 if size <= MAX_NUMBERED else 7
        axes.set_xticks(range(size), labels.texts, rotation=rotation, **font)
        axes.set_yticks(range(size), labels.texts, **font)
    return figure


def _subject(report: Mapping[str, Any]) -> str:
    return f"{report['num_examples']:,} {report['split']} examples"
