"""Text for a terminal: it may contain names in any script, and control characters, from files."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Sequence


def printable(text: str) -> str:
    """Return `text` with U+FFFD in place of control characters and other characters that are not printable."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def printable_lines(text: str) -> str:
    """Return `text` as `printable` does, but with its line breaks: all text for a terminal goes through here."""
    return "\n".join(map(printable, text.split("\n")))


def loss_text(loss: float) -> str:
    """Return a loss with four decimals, and a large one with an exponent: 3.21e+32."""
    return f"{loss:.3g}" if abs(loss) >= 1e6 else f"{loss:.4f}"


def num_columns(text: str) -> int:
    """Return the width of a printable text in columns: combining marks take none, wide characters two."""
    return sum(
        0 if unicodedata.category(character) in ("Mn", "Me") else 1 + (unicodedata.east_asian_width(character) in "WF")
        for character in text
    )


def cut(text: str, width: int | None) -> str:
    """Return a printable text, cut with an ellipsis if it is wider than `width` columns."""
    if width is None or num_columns(text) <= width:
        return text
    while num_columns(text) >= width and text:
        text = text[:-1]
    return text + "…"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], num_words: int | Collection[int] = 1) -> list[str]:
    """Return the lines of a table with aligned columns.

    Parameters
    ----------
    head, rows : the cells.
    num_words : the number of left-aligned columns, from the first, or their indices; the others are right-aligned.
    """
    left = range(num_words) if isinstance(num_words, int) else num_words
    widths = [max(map(num_columns, column)) for column in zip(head, *rows, strict=True)]
    return [
        "  ".join(
            _pad(cell, width, left=k in left) for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *rows)
    ]


def _pad(text: str, width: int, *, left: bool) -> str:
    spaces = " " * (width - num_columns(text))
    return text + spaces if left else spaces + text
