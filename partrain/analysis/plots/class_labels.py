"""Names of classes as they can be drawn: in any script for which the machine has a font."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

from partrain.system.terminal_text import printable

# The font that comes with matplotlib.
BASE_FAMILY = "DejaVu Sans"
MAX_CHARACTERS = 24


@dataclass(frozen=True)
class ClassLabels:
    """What stands in a picture for each class, and the fonts in which it is drawn.

    Attributes
    ----------
    texts : the names, long ones shortened; "class 3" for a name that no font of this machine has the characters of.
    families : fonts, the later ones for characters that the earlier ones lack.
    """

    texts: tuple[str, ...]
    families: tuple[str, ...]

    @classmethod
    def of(cls, class_names: Sequence[str]) -> ClassLabels:
        """Choose labels and fonts for these names."""
        names = [_shorten(printable(name)) for name in class_names]
        missing = {character for name in names for character in name} - _characters_of(BASE_FAMILY)
        families = [BASE_FAMILY]
        if missing:
            for family in _families():
                covered = missing & _characters_of(family)
                if covered:
                    families.append(family)
                    missing -= covered
                if not missing:
                    break
        texts = (f"class {k}" if missing & set(name) or not name.strip() else name for k, name in enumerate(names))
        return cls(tuple(texts), tuple(families))


def _shorten(name: str) -> str:
    return name if len(name) <= MAX_CHARACTERS else name[: MAX_CHARACTERS - 1] + "…"


def _families() -> list[str]:
    """Return the fonts of this machine that have an upright face of normal weight.

    Of others matplotlib would log that it draws with another face. Its list may be older than the removal of a font.
    A font of last resort has a box for everything.
    """
    faces = [entry for entry in font_manager.fontManager.ttflist if entry.style == entry.variant == "normal"]
    families = {e.name for e in faces if e.weight in (400, "normal", "regular") and os.path.isfile(e.fname)}
    return sorted(family for family in families if "last resort" not in family.lower())


@cache
def _characters_of(family: str) -> frozenset[str]:
    """Return the characters that the font has a glyph for: of the file that a text in this family is drawn with.

    A font that is gone or damaged has none.
    """
    try:
        path = font_manager.findfont(font_manager.FontProperties(family=[family]), fallback_to_default=False)
        return frozenset(chr(code) for code in FT2Font(str(path)).get_charmap())
    except (ValueError, OSError, RuntimeError):
        return frozenset()
