"""Curves in text, drawn by uniplot. This module needs the extra `watch`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from uniplot import plot_to_string

from partrain.analysis.watch.followed_run import Series
from partrain.system.terminal_text import cut, printable

# Lines around the plotting region: the frame, and the numbers of the x axis.
FRAME_LINES = 3
# The least lines and columns of a plotting region in which a curve can be seen.
LEAST_LINES, LEAST_COLUMNS = 3, 12
# Characters of Braille have two columns of dots.
_DOTS_PER_COLUMN = 2
# The loss is drawn on a logarithmic scale if it spans this factor.
_LOG_FACTOR = 10

_ASCII_FRAME = str.maketrans({"╭": "+", "╮": "+", "╰": "+", "╯": "+", "─": "-", "│": "|", "▁": "_"})


@dataclass(frozen=True)
class Look:
    """What a terminal can show.

    Attributes
    ----------
    has_colours : whether text may be coloured.
    is_ascii : whether only ASCII can be printed.
    """

    has_colours: bool
    is_ascii: bool

    def fit(self, text: str, columns: int) -> str:
        """Return a text with characters that can be printed, cut if it is wider than `columns`."""
        text = cut(printable(text), max(1, columns))
        return text.replace("…", "~").encode("ascii", "replace").decode() if self.is_ascii else text


def draw_curves(
    curves: Sequence[Series],
    colours: Sequence[str],
    last_step: float,
    size: tuple[int, int],
    look: Look,
    *,
    is_share: bool,
) -> str:
    """Return a chart of curves over the steps from 0; "" if there is no point.

    Where several points lie in one column of dots, their mean is drawn.

    Parameters
    ----------
    curves : steps and values of each curve.
    colours : the colour of each curve, such as "blue".
    last_step : the right end of the axis.
    size : columns and lines of the chart with its frame.
    look : what the terminal can show; colours are escape sequences in the text.
    is_share : whether the values are shares, to be shown in per cent; otherwise they are losses.
    """
    columns, lines = size
    last_step = max([last_step, 1.0, *(float(steps[-1]) for steps, _ in curves if len(steps))])
    found = [(_thin(curve, last_step, columns), colour) for curve, colour in zip(curves, colours, strict=True)]
    found = [(curve, colour) for curve, colour in found if len(curve[0])]
    if not found:
        return ""
    values = np.concatenate([curve[1] for curve, _ in found])
    is_log = not is_share and values.min() > 0 and values.max() >= _LOG_FACTOR * values.min()
    factor = 100.0 if is_share else 1.0
    chart: str = plot_to_string(
        xs=[curve[0] for curve, _ in found],
        ys=[curve[1] * factor for curve, _ in found],
        x_min=0,
        x_max=last_step,
        width=columns,
        line_length_hard_cap=columns,
        height=max(LEAST_LINES, lines - FRAME_LINES),
        lines=True,
        color=[colour for _, colour in found] if look.has_colours else False,
        character_set="ascii" if look.is_ascii else "braille",
        rounded_corners=True,
        x_gridlines=[],
        y_gridlines=[],
        y_as_log=is_log,
        y_unit="%" if is_share else "",
    )
    return chart.translate(_ASCII_FRAME) if look.is_ascii else chart


def _thin(curve: Series, last_step: float, columns: int) -> Series:
    """Return the mean step and value of the points in each column of dots; a single point is a short line."""
    steps = curve[0]
    if len(steps) == 1:  # a dot would be hard to see
        half = last_step / columns
        return np.array([max(0.0, steps[0] - half), min(last_step, steps[0] + half)]), np.repeat(curve[1], 2)
    num_dots = columns * _DOTS_PER_COLUMN
    if len(steps) <= num_dots:
        return curve
    dots = np.minimum(steps * (num_dots / last_step), num_dots - 1).astype(np.int64)
    counts = np.bincount(dots, minlength=num_dots)
    there = counts > 0
    means = [np.bincount(dots, weights=numbers, minlength=num_dots)[there] / counts[there] for numbers in curve]
    return means[0], means[1]
