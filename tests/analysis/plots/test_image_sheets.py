from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from partrain.analysis.plots.class_labels import ClassLabels
from partrain.analysis.plots.image_sheets import draw_misclassified, to_displayable
from tests.analysis.plots.rendering import pixels_of, texts_of

LABELS = ClassLabels.of(["zero", "one"])
RNG = np.random.Generator(np.random.Philox(key=0))


def example(**changes: Any) -> dict[str, Any]:
    return {"index": 17, "label": 0, "prediction": 1, "probability": 0.987} | changes


def test_sheet_shows_truth_prediction_and_index_of_each_image() -> None:
    images = [RNG.integers(0, 256, (1, 28, 28), dtype=np.uint8)] * 7
    examples = [example(index=k) for k in range(6)] + [example(index=99, probability=None)]
    figure = draw_misclassified(images, examples, 1234, "10,000 test examples", LABELS)
    pixels_of(figure)
    texts = texts_of(figure)
    assert {"true: zero", "predicted: one (98.7%)", "predicted: one (?)", "index 99"} <= set(texts)
    assert "Most confident of 1,234 errors, 10,000 test examples" in texts
    assert sum(bool(axes.images) for axes in figure.axes) == 7


def test_long_names_do_not_overlap() -> None:
    labels = ClassLabels.of(["a class with a name of many words"] * 2)
    images = [np.zeros((1, 4, 4), np.uint8)] * 12
    figure = draw_misclassified(images, [example()] * 12, 12, "12 test examples", labels)
    pixels_of(figure)
    boxes = [text.get_window_extent() for axes in figure.axes for text in axes.texts]
    assert len(boxes) == 36
    assert not [(a, b) for a, b in itertools.combinations(boxes, 2) if a.overlaps(b)]


def test_sheet_without_errors_says_so() -> None:
    figure = draw_misclassified([], [], 0, "10,000 test examples", LABELS)
    pixels_of(figure)
    assert texts_of(figure) == ["No errors, 10,000 test examples"]


def test_images_of_any_kind_can_be_displayed() -> None:
    grey = np.array([[[0, 51], [102, 255]]], np.uint8)
    np.testing.assert_allclose(to_displayable(grey), [[0, 0.2], [0.4, 1]])
    assert to_displayable(np.zeros((3, 5, 4), np.uint8)).shape == (5, 4, 3)
    assert to_displayable(np.zeros((2, 5, 4), np.uint8)).shape == (5, 4)
    floats = to_displayable(np.array([[[-3, 5], [1, 1]]], np.float32))
    np.testing.assert_allclose(floats, [[0, 1], [0.5, 0.5]])
    np.testing.assert_array_equal(to_displayable(np.full((1, 2, 2), 7, np.float32)), 0)
