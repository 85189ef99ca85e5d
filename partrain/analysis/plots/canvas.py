"""Where pictures are drawn: figures of their own on the Agg canvas, in one style, whatever the user has set.

pyplot is never imported: it keeps figures, and chooses a backend, for the whole process.
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

# 8 x 5 inches are 960 pixels: the text can be read where a page shows them at 800.
DOTS_PER_INCH = 120

# Of the palette of Okabe and Ito, made to be told apart by everybody (Wong, Nature Methods 8, 441, 2011).
BLUE, LIGHT_BLUE, ORANGE, VERMILION = "#0072B2", "#56B4E9", "#E69F00", "#D55E00"
GREY = "#595959"

# Any: matplotlib's types know every name of a setting, in newer versions alone.
_STYLE: Any = {
    "font.family": ["DejaVu Sans"],
    "font.size": 11,
    "axes.titlesize": 13,
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
    """Draw in this program's style within; the settings of the process are as before afterwards."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def new_figure(width: float = 8.0, height: float = 5.0) -> Figure:
    """Return an empty figure, its size in inches."""
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def new_axes(figure: Figure, title: str, x_label: str, y_label: str) -> Axes:
    """Return the only axes of a figure, with a grid."""
    axes = figure.add_subplot()
    axes.set_title(title)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(True)
    return axes


def to_png(figure: Figure) -> bytes:
    """Return the figure as a PNG file; equal figures are equal bytes, for one version of matplotlib."""
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()
