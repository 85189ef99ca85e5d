"""Rendering of figures in tests."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray
from PIL import Image

from partrain.analysis.plots.canvas import to_png


def pixels_of(figure: Figure | None) -> NDArray[np.uint8]:
    """Render a figure, which must have more than one colour; return its pixels (rows, columns, 3)."""
    assert figure is not None
    pixels = np.asarray(Image.open(io.BytesIO(to_png(figure))).convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 1
    return pixels


def texts_of(figure: Figure) -> list[str]:
    """Return all texts in a figure."""
    return [artist.get_text() for artist in figure.findobj(Text) if artist.get_text()]
