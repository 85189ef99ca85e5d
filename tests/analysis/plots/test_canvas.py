from __future__ import annotations

import subprocess
import sys

import matplotlib
import pytest

from partrain.analysis.plots.canvas import house_style, new_axes, new_figure, subject, to_png


def rendered() -> bytes:
    with house_style():
        figure = new_figure()
        new_axes(figure, "a title", "x", "y").plot([1, 2, 3])
        return to_png(figure)


def test_matplotlib_settings_of_the_process_are_neither_used_nor_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = rendered()
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30, "savefig.dpi": 10}):
        before = dict(matplotlib.rcParams)
        assert rendered() == expected
        assert dict(matplotlib.rcParams) == before


def test_pyplot_is_not_imported() -> None:
    modules = "run_plots, canvas, class_labels, class_plots, example_sheets, filters, image_sheets, training_curves"
    code = f"import sys; from partrain.analysis.plots import {modules}; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_titles_name_the_splits_in_english() -> None:
    assert subject(10_000, "train") == "10,000 training examples"
    assert subject(7, "test") == "7 test examples"
