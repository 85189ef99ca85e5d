from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from partrain.analysis.plots.class_labels import ClassLabels
from partrain.analysis.plots.images import _as_picture, draw_filters, draw_misclassified
from tests.analysis.plots.pictures import pixels_of, texts_of

LABELS = ClassLabels.of(["zero", "one"])
RNG = np.random.Generator(np.random.Philox(key=0))


@pytest.mark.parametrize("shape", [(8, 1, 5, 5), (1, 1, 1, 1), (100, 1, 3, 3), (6, 2, 5, 5), (40, 20, 2, 3)])
def test_filters_are_drawn_on_one_scale_around_zero(shape: tuple[int, ...]) -> None:
    weight = RNG.standard_normal(shape).astype(np.float32)
    figure = draw_filters(weight)
    pixels_of(figure)
    image = figure.axes[0].images[0]
    limit = float(np.abs(weight).max())
    assert image.get_clim() == (-limit, limit)
    num = min(shape[0], 64 if shape[1] == 1 else 8) * min(shape[1], 8)
    assert np.ma.count(image.get_array()) == num * shape[2] * shape[3]
    assert len(figure.axes[0].texts) == num
    assert (num < shape[0] * shape[1]) == any("the first ones" in text for text in texts_of(figure))


@pytest.mark.parametrize("num_filters", [1, 8, 100])
def test_filters_of_three_channels_are_drawn_in_colour(num_filters: int) -> None:
    weight = RNG.standard_normal((num_filters, 3, 4, 5)).astype(np.float32)
    weight[0] = 0
    weight[0, 0, 1, 2] = 9  # the largest of all, red
    figure = draw_filters(weight)
    pixels_of(figure)
    mosaic = figure.axes[0].images[0].get_array()
    assert mosaic[1, 2].tolist() == [1, 0.5, 0.5]
    assert mosaic[0, 0].tolist() == [0.5, 0.5, 0.5]
    assert sum(text.get_text().isdigit() for text in figure.axes[0].texts) == min(num_filters, 64)
    assert (num_filters > 64) == any("the first ones" in text for text in texts_of(figure))


def test_filters_of_zeros_are_drawn() -> None:
    pixels_of(draw_filters(np.zeros((2, 1, 3, 3), np.float32)))


def example(**changes: Any) -> dict[str, Any]:
    return {"index": 17, "label": 0, "prediction": 1, "probability": 0.987} | changes


def test_sheet_tells_truth_prediction_and_index_of_each_image() -> None:
    images = [RNG.integers(0, 256, (1, 28, 28), dtype=np.uint8)] * 7
    examples = [example(index=k) for k in range(6)] + [example(index=99, probability=None)]
    figure = draw_misclassified(images, examples, 1234, "10,000 test examples", LABELS)
    pixels_of(figure)
    texts = texts_of(figure)
    assert {"truth: zero", "said: one (98.7%)", "said: one (?)", "index 99"} <= set(texts)
    assert "The most confidently wrong of 1,234 errors, 10,000 test examples" in texts
    assert sum(bool(axes.images) for axes in figure.axes) == 7


def test_sheet_without_errors_says_so() -> None:
    figure = draw_misclassified([], [], 0, "10,000 test examples", LABELS)
    pixels_of(figure)
    assert texts_of(figure) == ["No errors, 10,000 test examples"]


def test_image_of_any_kind_becomes_a_picture() -> None:
    grey = np.array([[[0, 51], [102, 255]]], np.uint8)
    np.testing.assert_allclose(_as_picture(grey), [[0, 0.2], [0.4, 1]])
    assert _as_picture(np.zeros((3, 5, 4), np.uint8)).shape == (5, 4, 3)
    assert _as_picture(np.zeros((2, 5, 4), np.uint8)).shape == (5, 4)
    floats = _as_picture(np.array([[[-3, 5], [1, 1]]], np.float32))
    np.testing.assert_allclose(floats, [[0, 1], [0.5, 0.5]])
    np.testing.assert_array_equal(_as_picture(np.full((1, 2, 2), 7, np.float32)), 0)
