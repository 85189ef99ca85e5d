from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager

from partrain.analysis.plots import class_labels
from partrain.analysis.plots.class_labels import ClassLabels
from partrain.analysis.plots.class_plots import draw_recall
from partrain.analysis.plots.image_sheets import draw_misclassified
from tests.analysis.plots.rendering import pixels_of, texts_of

HOSTILE = [
    "T-shirt/top",
    "$x^2$ \\frac{",
    "数字七",
    "العربية",
    "🙂",
    "नमस्ते",
    "\033[2J\n",
    "",
    " ",
    "x" * 90,
    "<b>",
    "Größe",
]


@pytest.mark.slow
@pytest.mark.parametrize("has_other_fonts", [True, False])
def test_names_of_any_script_are_drawn_without_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, has_other_fonts: bool
) -> None:
    if not has_other_fonts:
        monkeypatch.setattr(class_labels, "font_families", lambda: [])
    labels = ClassLabels.of(HOSTILE)
    E = len(HOSTILE)
    report = {"recall": [0.5] * E, "num_examples": 20 * E, "split": "test"}
    example = {"index": 3, "label": 2, "prediction": 1, "probability": 0.5}
    sheet = draw_misclassified([np.zeros((1, 4, 4), np.uint8)], [example], 1, "12 test examples", labels)
    for figure in (draw_recall(report, labels), sheet):
        pixels_of(figure)
    assert caplog.records == []
    assert f"true: {labels.texts[2]}" in texts_of(sheet)


def test_name_without_a_font_is_replaced_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_labels, "font_families", lambda: [])
    labels = ClassLabels.of(["a", "数字", "", "Größe"])
    assert labels.texts == ("a", "class 1", "class 2", "Größe")
    assert labels.families == ("DejaVu Sans",)


def test_font_that_has_the_characters_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    characters = {"DejaVu Sans": set("abc"), "One": set("xy"), "Two": set("b数字"), "Three": set("数")}
    monkeypatch.setattr(class_labels, "characters_of", lambda family: frozenset(characters[family]))
    monkeypatch.setattr(class_labels, "font_families", lambda: ["One", "Two", "Three"])
    labels = ClassLabels.of(["abc", "数字"])
    assert labels.texts == ("abc", "数字")
    assert labels.families == ("DejaVu Sans", "Two")


def test_font_that_has_most_of_the_characters_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    characters = {"DejaVu Sans": set("abc"), "One": set("数"), "Two": set("数字七"), "Three": set("猫")}
    monkeypatch.setattr(class_labels, "characters_of", lambda family: frozenset(characters[family]))
    monkeypatch.setattr(class_labels, "font_families", lambda: ["One", "Two", "Three"])
    labels = ClassLabels.of(["数字七", "猫", "犬"])
    assert labels.texts == ("数字七", "猫", "class 2")
    assert labels.families == ("DejaVu Sans", "Two", "Three")


def test_names_written_from_right_to_left_do_not_reorder_what_is_beside_them() -> None:
    """In Unicode's bidirectional algorithm, a left-to-right mark on each side keeps the order of the parts."""
    mark = "\N{LEFT-TO-RIGHT MARK}"
    assert ClassLabels.of(["قطة 2", "cat", "חתול"]).texts == (f"{mark}قطة 2{mark}", "cat", f"{mark}חתול{mark}")
    assert mark in class_labels.characters_of("DejaVu Sans")


def test_font_that_was_removed_or_is_damaged_has_no_characters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert class_labels.characters_of("a family that no machine has") == frozenset()
    (tmp_path / "damaged.ttf").write_bytes(b"no font")
    monkeypatch.setattr(font_manager, "findfont", lambda *given, **options: tmp_path / "damaged.ttf")
    assert class_labels.characters_of("a family that is damaged") == frozenset()


def test_fonts_of_last_resort_are_not_used() -> None:
    names = {entry.name for entry in font_manager.fontManager.ttflist}
    assert set(class_labels.font_families()) <= {name for name in names if "Last Resort" not in name}


def test_long_name_is_shortened() -> None:
    (text,) = ClassLabels.of(["x" * 90]).texts
    assert text == "x" * 23 + "…"


def test_long_names_stay_different() -> None:
    names = [f"great crested flycatcher, variant {k}" for k in range(12)] + ["x" * 90 + "y" * 90, "x" * 91 + "y" * 90]
    texts = ClassLabels.of(names).texts
    assert len(set(texts)) == len(names)
    assert texts[3] == "great crest…r, variant 3"
    assert texts[12:] == ("x" * 18 + "… (12)", "x" * 18 + "… (13)")
    assert max(map(len, texts)) <= 24
    assert ClassLabels.of(["\x01", "\x02"]).texts == ("\N{REPLACEMENT CHARACTER} (0)", "\N{REPLACEMENT CHARACTER} (1)")


def test_wide_characters_count_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_labels, "characters_of", lambda family: frozenset("七…"))
    assert ClassLabels.of(["七" * 30]).texts == ("七" * 11 + "…",)


def test_font_that_was_installed_after_matplotlib_listed_the_fonts_is_used(tmp_path: Path) -> None:
    """In a process of its own, because matplotlib keeps its list as long as the process lives."""
    builder = FontBuilder(1000)
    builder.setupGlyphOrder([".notdef", "seven"])
    builder.setupCharacterMap({ord("七"): "seven"})
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    pen.lineTo((500, 0))
    pen.lineTo((500, 500))
    pen.closePath()
    builder.setupGlyf({name: pen.glyph() for name in (".notdef", "seven")})
    builder.setupHorizontalMetrics({name: (600, 0) for name in (".notdef", "seven")})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Fresh", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "fresh.ttf")
    (tmp_path / "damaged.ttf").write_bytes(b"no font")
    code = f"""
from matplotlib import font_manager
font_manager.findSystemFonts = lambda: [{str(tmp_path / "damaged.ttf")!r}, {str(tmp_path / "fresh.ttf")!r}]
from partrain.analysis.plots.class_labels import ClassLabels
labels = ClassLabels.of(["seven", "七"])
assert labels.texts == ("seven", "七") and labels.families[-1] == "Fresh", labels
"""
    result = subprocess.run([sys.executable, "-c", code], timeout=60, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
