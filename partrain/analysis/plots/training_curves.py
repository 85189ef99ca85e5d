"""Curves of a training run: loss over steps, accuracy over epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from partrain.analysis.logged_run import finite
from partrain.analysis.plots.accuracy_axis import AccuracyScale
from partrain.analysis.plots.canvas import BLUE, LIGHT_BLUE, VERMILION, new_axes, new_figure

Rows = Sequence[Mapping[str, Any]]
Series = tuple[NDArray[np.float64], NDArray[np.float64]]

# The smoothed curve averages over about this share of all points.
SMOOTHED_SHARE = 0.05
# Up to this number of points, each has a marker.
FEW_POINTS = 30
# More points than this take longer to draw without being visible: the image is narrower.
MAX_POINTS = 20_000


def draw_loss(rows: Rows) -> Figure | None:
    """Draw the loss of each logged step, raw and smoothed, and the validation loss.

    Parameters
    ----------
    rows : the rows of metrics.jsonl.

    Returns
    -------
    The figure; None without losses.
    """
    steps, losses = _series(rows, "step", "train/loss")
    if not len(steps):
        return None
    figure = new_figure()
    axes = new_axes(figure, "Loss", "step", "loss (mean cross-entropy, nats)")
    smoothed, num_points = smooth(losses)
    span = max(1.0, num_points * (steps[-1] - steps[0]) / max(1, len(steps) - 1))
    marker = "." if len(steps) <= FEW_POINTS else None
    axes.plot(steps, losses, marker=marker, color=LIGHT_BLUE, linewidth=0.7, alpha=0.6, label="training batches")
    label = f"training batches, smoothed over about {span:,.0f} steps"
    axes.plot(steps, smoothed, color=BLUE, linewidth=2, label=label)
    at, validation = _series(rows, "step", "validation/loss")
    if len(at):
        axes.plot(at, validation, "o-", color=VERMILION, linewidth=1.2, markersize=5, label="validation")
    lowest, highest = float(smoothed.min()), float(smoothed.max())
    if highest >= 10 * lowest > 0:
        axes.set_yscale("log")
        # The loss of a single batch can be close to 0, where a logarithmic axis has no end.
        axes.set_ylim(bottom=min([lowest, *validation[validation > 0].tolist()]) / 5)
        axes.yaxis.set_major_formatter("{x:g}")
    axes.legend()
    return figure


def draw_accuracy(rows: Rows) -> Figure | None:
    """Draw the validation accuracy, and the smoothed training accuracy.

    Parameters
    ----------
    rows : the rows of metrics.jsonl.

    Returns
    -------
    The figure; None without accuracies.
    """
    epochs, accuracies = _series(rows, "epoch", "train/accuracy")
    at, validation = _series(rows, "epoch", "validation/accuracy")
    if not len(epochs) and not len(at):
        return None
    figure = new_figure()
    axes = new_axes(figure, "Accuracy", "epoch", "accuracy")
    smoothed, _ = smooth(accuracies)
    if len(epochs):
        marker = "." if len(epochs) <= FEW_POINTS else None
        axes.plot(epochs, smoothed, marker=marker, color=BLUE, label="training batches, smoothed")
    if len(at):
        axes.plot(at, validation, "o-", color=VERMILION, markersize=6, clip_on=False, label="validation")
        axes.annotate(
            f"{validation[-1]:.2%}",
            (float(at[-1]), float(validation[-1])),
            xytext=(0, -18),
            textcoords="offset points",
            ha="right",
            color=VERMILION,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
        )
    AccuracyScale.of(np.concatenate([smoothed, validation]), validation).apply(axes, "y")
    axes.legend(loc="lower right")
    return figure


def smooth(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """Return the exponential moving average of the values, and the number of points that it averages over.

    m = (1-w)·m + w·x from m = 0, divided by 1 - (1-w)^t to correct the bias of the start.
    """
    num_points = max(1, round(SMOOTHED_SHARE * len(values)))
    weight = 2 / (num_points + 1)
    smoothed, mean, bias = np.empty(len(values)), 0.0, 1.0
    for k, value in enumerate(values.tolist()):
        mean += weight * (value - mean)
        bias *= 1 - weight
        smoothed[k] = mean / (1 - bias)
    return smoothed, num_points


def _series(rows: Rows, x_name: str, y_name: str) -> Series:
    """Return two columns, from the rows that have plausible finite numbers in both."""
    numbers = ((finite(row.get(x_name)), finite(row.get(y_name))) for row in rows)
    pairs = [(x, y) for x, y in numbers if x is not None and y is not None]
    if y_name.endswith("/accuracy"):
        pairs = [(x, y) for x, y in pairs if 0 <= y <= 1]
    pairs = pairs[:: max(1, len(pairs) // MAX_POINTS)]
    x, y = (np.array([pair[k] for pair in pairs], np.float64) for k in (0, 1))
    return x, y
