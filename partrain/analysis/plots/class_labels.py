"""Labels of classes in plots, in any script for which the machine has a font."""

from __future__ import annotations

import contextlib
import itertools
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

from partrain.system.terminal_text import num_columns, printable

# The font that is part of matplotlib.
BASE_FAMILY = "DejaVu Sans"
# Longer names are shortened. Wide characters, such as Chinese ones, take two columns.
MAX_COLUMNS = 24
_LEFT_TO_RIGHT = "\N{LEFT-TO-RIGHT MARK}"


@dataclass(frozen=True)
class ClassLabels:
    """The label of each class, and the fonts to draw the labels in.

    Attributes
    ----------
    texts : the names, long ones shortened, no two equal; "class 3" if no font of this machine can draw the name.
    families : font families; later ones supply the characters that earlier ones lack.
    """

    texts: tuple[str, ...]
    families: tuple[str, ...]

    @classmethod
    def of(cls, class_names: Sequence[str]) -> ClassLabels:
        """Return labels and fonts for these names."""
        names = _shorten([printable(name) for name in class_names])
        missing = {character for name in names for character in name} - characters_of(BASE_FAMILY)
        families = [BASE_FAMILY]
        if missing:
            _add_new_fonts()
            # The family that has most of them first: a name in several fonts is hard to read.
            others = {family: characters_of(family) for family in font_families()}
            while missing and (family := max(others, key=lambda name: len(missing & others[name]), default="")):
                if not missing & others[family]:
                    break
                families.append(family)
                missing -= others.pop(family)
        texts = (
            f"class {k}" if missing & set(name) or not name.strip() else _with_direction(name)
            for k, name in enumerate(names)
        )
        return cls(tuple(texts), tuple(families))


def _with_direction(name: str) -> str:
    """Return a name that reorders nothing beside it, as an Arabic name does with a number that follows.

    With marks and not with isolates, which DejaVu Sans lacks: versions of matplotlib that ignore directions draw a box.
    """
    if any(unicodedata.bidirectional(character) in ("R", "AL") for character in name):
        return f"{_LEFT_TO_RIGHT}{name}{_LEFT_TO_RIGHT}"
    return name


def _shorten(names: Sequence[str]) -> list[str]:
    """Return names that fit: their start; if that is not unique, start and end; otherwise the start and the number."""
    shortened = [_cut(name, MAX_COLUMNS) for name in names]
    for cut in (_cut_middle, _cut_before_number):
        count = Counter(shortened)
        shortened = [
            cut(name, k) if count[text] > 1 else text
            for k, (name, text) in enumerate(zip(names, shortened, strict=True))
        ]
    return shortened


def _cut(name: str, columns: int) -> str:
    return name if num_columns(name) <= columns else name[: _num_fitting(name, columns - 1)] + "…"


def _cut_middle(name: str, number: int) -> str:
    if num_columns(name) <= MAX_COLUMNS:
        return name
    half = MAX_COLUMNS // 2
    return _cut(name, half) + name[-_num_fitting(reversed(name), half) :]


def _cut_before_number(name: str, number: int) -> str:
    suffix = f" ({number})"
    return _cut(name, MAX_COLUMNS - len(suffix)) + suffix


def _num_fitting(characters: Iterable[str], columns: int) -> int:
    """Return how many of the characters fit."""
    widths = itertools.accumulate(map(num_columns, characters))
    return sum(1 for _ in itertools.takewhile(lambda width: width <= columns, widths))


def font_families() -> list[str]:
    """Return the font families of this machine that have an upright face of normal weight.

    For other families matplotlib would log that it substitutes a face. Its list may name fonts that were removed, so
    each file is checked. Fonts of last resort are excluded, because they draw a box for every character.
    """
    faces = [entry for entry in font_manager.fontManager.ttflist if entry.style == entry.variant == "normal"]
    families = {e.name for e in faces if e.weight in (400, "normal", "regular") and os.path.isfile(e.fname)}
    return sorted(family for family in families if "last resort" not in family.lower())


@cache
def _add_new_fonts() -> None:
    """Add the fonts that were installed after matplotlib wrote its list of fonts, which it never renews."""
    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    for path in font_manager.findSystemFonts():
        if path not in known:
            # A bitmap font, such as one of emoji, or a damaged file.
            with contextlib.suppress(OSError, RuntimeError, ValueError):
                font_manager.fontManager.addfont(path)


@cache
def characters_of(family: str) -> frozenset[str]:
    """Return the characters for which the family has a glyph; empty if the font file is missing or damaged."""
    try:
        path = font_manager.findfont(font_manager.FontProperties(family=[family]), fallback_to_default=False)
        return frozenset(chr(code) for code in FT2Font(str(path)).get_charmap())
    except (ValueError, OSError, RuntimeError):
        return frozenset()
