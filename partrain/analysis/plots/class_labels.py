"""Labels of classes in plots, in any script for which the machine has a font."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

from partrain.system.terminal_text import printable

# The font that is part of matplotlib.
BASE_FAMILY = "DejaVu Sans"
MAX_CHARACTERS = 24


@dataclass(frozen=True)
class ClassLabels:
    """The label of each class, and the fonts to draw the labels in.

    Attributes
    ----------
    texts : the names, long ones shortened; "class 3" if no font of this machine can draw the name.
    families : font families; later ones supply the characters that earlier ones lack.
    """

    texts: tuple[str, ...]
    families: tuple[str, ...]

    @classmethod
    def of(cls, class_names: Sequence[str]) -> ClassLabels:
        """Return labels and fonts for these names."""
        names = [_shorten(printable(name)) for name in class_names]
        missing = {character for name in names for character in name} - characters_of(BASE_FAMILY)
        families = [BASE_FAMILY]
        if missing:
            for family in font_families():
                covered = missing & characters_of(family)
                if covered:
                    families.append(family)
                    missing -= covered
                if not missing:
                    break
        texts = (f"class {k}" if missing & set(name) or not name.strip() else name for k, name in enumerate(names))
        return cls(tuple(texts), tuple(families))


def _shorten(name: str) -> str:
    return name if len(name) <= MAX_CHARACTERS else name[: MAX_CHARACTERS - 1] + "…"


def font_families() -> list[str]:
    """Return the font families of this machine that have an upright face of normal weight.

    For other families matplotlib would log that it substitutes a face. Its list may be out of date, so each file is
    checked. Fonts of last resort are excluded, because they draw a box for every character.
    """
    faces = [entry for entry in font_manager.fontManager.ttflist if entry.style == entry.variant == "normal"]
    families = {e.name for e in faces if e.weight in (400, "normal", "regular") and os.path.isfile(e.fname)}
    return sorted(family for family in families if "last resort" not in family.lower())


@cache
def characters_of(family: str) -> frozenset[str]:
    """Return the characters for which the family has a glyph; empty if the font file is missing or damaged."""
    try:
        path = font_manager.findfont(font_manager.FontProperties(family=[family]), fallback_to_default=False)
        return frozenset(chr(code) for code in FT2Font(str(path)).get_charmap())
    except (ValueError, OSError, RuntimeError):
        return frozenset()
