"""Figures in one style, independent of the user's matplotlib settings, rendered by the Agg backend.

pyplot is never imported, because it keeps figures and selects a backend for the whole process.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from partrain.data.split_name import SplitName

# 8 x 5 inches are 960 x 600 pixels: text stays readable on a page that scales the image to 800.
DOTS_PER_INCH = 120

# From the palette of Okabe and Ito, which colour-blind readers can distinguish (Wong, Nature Methods 8, 441, 2011).
BLUE, LIGHT_BLUE, ORANGE, VERMILION = "#0072B2", "#56B4E9", "#E69F00", "#D55E00"
GREY = "#595959"
# In points.
TITLE_SIZE = 13

# Any, because only newer versions of matplotlib have types for the names of settings.
_STYLE: Any = {
    "font.family": ["DejaVu Sans"],
    "font.size": 11,
    "axes.titlesize": TITLE_SIZE,
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#E0E0E0",
    "legend.frameon": False,
}


@contextmanager
def house_style() -> Iterator[None]:
    """Draw in partrain's style within the context; restore the settings of the process afterwards."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def new_figure(width: float = 8.0, height: float = 5.0) -> Figure:
    """Return an empty figure; width and height are in inches."""
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def new_axes(figure: Figure, title: str, x_label: str, y_label: str) -> Axes:
    """Return the axes of a figure with a single plot, with a grid."""
    axes = figure.add_subplot()
    axes.set_title(title)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(True)
    return axes


def subject(num_examples: int, split: str) -> str:
    """Return the examples of a split in words, for a title."""
    return f"{num_examples:,} {'training' if split == SplitName.TRAIN else split} examples"


def to_png(figure: Figure) -> bytes:
    """Return the figure as a PNG file; with one version of matplotlib, equal figures give equal bytes."""
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()
