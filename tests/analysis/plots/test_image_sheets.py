from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from matplotlib.text import Text

from partrain.analysis.plots.canvas import DOTS_PER_INCH
from partrain.analysis.plots.class_labels import ClassLabels
from partrain.analysis.plots.image_sheets import (
    EXAMPLE_CELL,
    GAP,
    IMAGE_SIZE,
    draw_examples,
    draw_hardest,
    draw_misclassified,
    examples_per_class,
    to_displayable,
)
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
    assert "The most confident of 1,234 errors on 10,000 test examples" in texts
    assert sum(bool(axes.images) for axes in figure.axes) == 7


def test_sheet_names_files_in_place_of_indices() -> None:
    images = [np.zeros((1, 4, 4), np.uint8)] * 3
    files = ["test/cat/a.png", "test/dog/\x1b[31m $x_1$.png", "test/" + "long name " * 9 + ".png"]
    examples = [example(file=file, loss=1.0, gradient_norm=2.0) for file in files]
    for figure in (
        draw_misclassified(images, examples, 3, "9 test examples", LABELS),
        draw_hardest(images, examples, "Largest losses", LABELS),
    ):
        pixels_of(figure)
        texts = [text.replace("\n", "") for text in texts_of(figure)]
        assert any("test/cat/a.png" in text for text in texts)
        assert any("$x_1$.png" in text for text in texts)
        assert not any("17" in text or "\x1b" in text for text in texts)


def test_file_whose_name_no_font_can_draw_has_its_index() -> None:
    images = [np.zeros((1, 4, 4), np.uint8)]
    figure = draw_misclassified(images, [example(file="test/猫.png")], 1, "9 test examples", LABELS)
    pixels_of(figure)
    assert "index 17" in texts_of(figure)


def test_long_names_do_not_overlap() -> None:
    labels = ClassLabels.of(["a class with a name of many words"] * 2)
    images = [np.zeros((1, 4, 4), np.uint8)] * 12
    figure = draw_misclassified(images, [example()] * 12, 12, "12 test examples", labels)
    pixels_of(figure)
    boxes = [text.get_window_extent() for axes in figure.axes for text in axes.texts]
    assert len(boxes) == 36
    assert not [(a, b) for a, b in itertools.combinations(boxes, 2) if a.overlaps(b)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["7", "great crested flycatcher", "x" * 60, "数字七的手写体样本的图像", "العربية رقم سبعة"]
)
def test_images_have_one_size_whatever_the_names(name: str) -> None:
    labels = ClassLabels.of([f"{name} {k}" for k in range(2)])
    images = [np.zeros((1, 4, 4), np.uint8)] * 2
    hard = example(loss=3.2, gradient_norm=0.25, flipped=True)
    for figure, size in (
        (draw_misclassified(images, [example()] * 2, 2, "9 test examples", labels), IMAGE_SIZE),
        (draw_hardest(images, [hard] * 2, "Largest losses", labels), IMAGE_SIZE),
        (draw_examples([images] * 2, labels, "pets", 0), EXAMPLE_CELL - GAP),
    ):
        pixels_of(figure)
        for axes in figure.axes:
            assert axes.get_window_extent().width == pytest.approx(size * DOTS_PER_INCH)
        for text in figure.findobj(Text):
            box = text.get_window_extent()
            assert text.get_text() == "" or (
                box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height
            )


def test_sheet_says_how_many_errors_there_are() -> None:
    figure = draw_misclassified([], [], 0, "10,000 test examples", LABELS)
    pixels_of(figure)
    assert texts_of(figure) == ["No errors on 10,000 test examples"]
    figure = draw_misclassified([np.zeros((1, 4, 4), np.uint8)], [example()], 1, "6 test examples", LABELS)
    assert "The only error on 6 test examples" in texts_of(figure)


@pytest.mark.parametrize(
    ("num_classes", "num_columns"),
    [(2, 1), (26, 2), *(pytest.param(*numbers, marks=pytest.mark.slow) for numbers in ((25, 1), (47, 2), (100, 4)))],
)
def test_sheet_of_a_data_set_shows_many_classes_in_columns(num_classes: int, num_columns: int) -> None:
    labels = ClassLabels.of([f"great crested flycatcher {k}" for k in range(num_classes)])
    images = [np.zeros((1, 4, 4), np.uint8)] * examples_per_class(num_classes)
    assert len(images) == 12 // num_columns
    figure = draw_examples([images[:1]] * (num_classes - 1) + [images], labels, "birds", 0)
    pixels_of(figure)
    boxes = [axes.get_window_extent() for axes in figure.axes]
    assert {round(box.width) for box in boxes} == {96}
    texts = [text for text in figure.findobj(Text) if text.get_text()][1:]
    assert [text.get_text() for text in texts] == list(labels.texts)
    assert len({round(text.get_window_extent().x1) for text in texts}) == num_columns
    boxes += [text.get_window_extent() for text in texts]
    assert not [(a, b) for a, b in itertools.combinations(boxes, 2) if a.overlaps(b)]
    assert figure.bbox.height < 2800
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y0 >= 0 for box in boxes)


def test_images_of_any_kind_can_be_displayed() -> None:
    grey = np.array([[[0, 51], [102, 255]]], np.uint8)
    np.testing.assert_allclose(to_displayable(grey), [[0, 0.2], [0.4, 1]])
    assert to_displayable(np.zeros((3, 5, 4), np.uint8)).shape == (5, 4, 3)
    assert to_displayable(np.zeros((2, 5, 4), np.uint8)).shape == (5, 4)
    floats = to_displayable(np.array([[[-3, 5], [1, 1]]], np.float32))
    np.testing.assert_allclose(floats, [[0, 1], [0.5, 0.5]])
    np.testing.assert_array_equal(to_displayable(np.full((1, 2, 2), 7, np.float32)), 0)
