"""Text for a terminal, from names of any script that may come out of a file."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def printable(text: str) -> str:
    """Return `text` with U+FFFD in place of what would move the cursor, change colours, or not show."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def num_columns(text: str) -> int:
    """Return how many columns of a terminal a printable text takes: marks none, wide characters two."""
    return sum(
        0 if unicodedata.category(character) in ("Mn", "Me") else 1 + (unicodedata.east_asian_width(character) in "WF")
        for character in text
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]], num_words: int = 1) -> list[str]:
    """Return the lines of a table: the first `num_words` columns flush left, the others flush right."""
    widths = [max(map(num_columns, column)) for column in zip(head, *rows, strict=True)]
    return [
        "  ".join(
            _pad(cell, width, left=k < num_words) for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *rows)
    ]


def _pad(text: str, width: int, *, left: bool) -> str:
    spaces = " " * (width - num_columns(text))
    return text + spaces if left else spaces + text
