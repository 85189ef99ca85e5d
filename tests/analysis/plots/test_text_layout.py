from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Text

from partrain.analysis.plots.canvas import DOTS_PER_INCH, new_figure
from partrain.analysis.plots.text_layout import text_width, wrap

FAMILIES = ("DejaVu Sans",)


@pytest.mark.parametrize("text", ["0", "true: great crested flycatcher", "Größe", "ελληνικά"])
def test_width_is_that_of_the_drawn_text(text: str) -> None:
    figure = new_figure()
    drawn: Text = figure.text(0, 0, text, fontsize=9, fontfamily=FAMILIES, parse_math=False)
    assert text_width(text, 9, FAMILIES) == pytest.approx(drawn.get_window_extent().width / DOTS_PER_INCH, rel=0.05)


@given(st.text("ab -é", max_size=40), st.floats(0.3, 2))
def test_lines_fit_and_contain_the_whole_text(text: str, width: float) -> None:
    lines = wrap(text, width, 9, FAMILIES)
    assert all(text_width(line, 9, FAMILIES) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_text_is_broken_between_words() -> None:
    assert wrap("true: great crested flycatcher", 0.9, 9, FAMILIES) == ["true: great", "crested", "flycatcher"]


def test_word_that_is_too_long_is_broken_and_a_line_has_at_least_one_character() -> None:
    assert wrap("mmmm", 0.3, 9, FAMILIES) == ["mm", "mm"]
    assert wrap("mm", 0.01, 9, FAMILIES) == ["m", "m"]
