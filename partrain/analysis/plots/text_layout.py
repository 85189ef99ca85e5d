"""The width of texts in plots, and the lines that a text needs in a given width.

Figures with images are laid out by hand: matplotlib's automatic layouts shrink the images until long labels fit.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

POINTS_PER_INCH = 72
# The distance between matplotlib's lines, as a multiple of the font size.
_LINE_SPACING = 1.4


def text_width(text: str, size: float, families: Sequence[str]) -> float:
    """Return the width of a text, in inches, in a font of `size` points."""
    font = FontProperties(family=list(families), size=size)
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return float(width) / POINTS_PER_INCH


def widest(texts: Sequence[str], size: float, families: Sequence[str]) -> float:
    """Return the width of the widest text, in inches; 0 without texts."""
    return max((text_width(text, size, families) for text in texts), default=0.0)


def lines_height(num_lines: int, size: float) -> float:
    """Return the height of lines of text, in inches."""
    return num_lines * size * _LINE_SPACING / POINTS_PER_INCH


def wrap(text: str, width: float, size: float, families: Sequence[str]) -> list[str]:
    """Break a text into lines that are at most `width` inches wide: between words, or within a word that is wider."""
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if text_width(longer, size, families) <= width:
            line = longer
            continue
        lines += [line] if line else []
        line = word
        while (num_fitting := _num_fitting(line, width, size, families)) < len(line):
            lines.append(line[:num_fitting])
            line = line[num_fitting:]
    return [*lines, line]


def _num_fitting(text: str, width: float, size: float, families: Sequence[str]) -> int:
    """Return how many characters fit the width, at least one."""
    low, high = 1, max(1, len(text))
    while low < high:
        middle = (low + high + 1) // 2
        if text_width(text[:middle], size, families) <= width:
            low = middle
        else:
            high = middle - 1
    return low
