from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from partrain.analysis.plots.canvas import house_style
from partrain.analysis.plots.class_labels import ClassLabels
from partrain.analysis.plots.class_plots import draw_confusion, draw_recall
from tests.analysis.plots.rendering import pixels_of, texts_of


def report_of(counts: np.ndarray) -> dict[str, Any]:
    sums = counts.sum(axis=1)
    recall = [counts[k, k] / n if n else None for k, n in enumerate(sums.tolist())]
    return {"recall": recall, "confusion": counts.tolist(), "num_examples": int(counts.sum()), "split": "test"}


def labels_of(num_classes: int) -> ClassLabels:
    return ClassLabels.of([f"name {k}" for k in range(num_classes)])


def test_recall_of_each_class_is_a_labelled_point() -> None:
    figure = draw_recall(report_of(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])), labels_of(3))
    pixels_of(figure)
    np.testing.assert_array_equal(figure.axes[0].get_lines()[0].get_xdata(), [0.75, 1, np.nan])
    expected = {"75.00%", "100.00%", "no examples", "name 0", "name 2", "Recall of each class on 8 test examples"}
    assert expected <= set(texts_of(figure))


def test_with_many_classes_only_the_lowest_recalls_are_drawn() -> None:
    counts = np.diag(np.arange(1, 101))
    counts[:, 0] += 10
    counts[99] = 0
    figure = draw_recall(report_of(counts), labels_of(100))
    pixels_of(figure)
    shown = list(figure.axes[0].get_lines()[0].get_xdata())  # type: ignore[arg-type]
    assert len(shown) == 30
    assert shown == sorted(shown)
    assert "name 1" in texts_of(figure)
    assert "name 99" not in texts_of(figure)


def test_confusion_matrix_shows_the_number_of_each_pair() -> None:
    figure = draw_confusion(report_of(np.array([[970, 12, 0], [3, 1000, 0], [0, 0, 0]])), labels_of(3))
    pixels_of(figure)
    assert figure is not None
    texts = texts_of(figure)
    assert {"970", "12", "3", "1000", "true class", "predicted class", "Confusion matrix of 1,985 test examples"} <= {
        *texts
    }


@pytest.mark.slow
def test_confusion_matrix_of_many_classes_has_no_numbers() -> None:
    counts = np.eye(60, dtype=int) * 1234
    figure = draw_confusion(report_of(counts), labels_of(60))
    pixels_of(figure)
    assert figure is not None
    assert "1234" not in texts_of(figure)
    assert draw_confusion(report_of(counts) | {"confusion": None}, labels_of(60)) is None


def test_similar_recalls_are_far_apart() -> None:
    recall = [0.991, 0.995, 0.999, 0.987]
    figure = draw_recall({"recall": recall, "num_examples": 4000, "split": "test"}, labels_of(4))
    pixels_of(figure)
    points = figure.axes[0].transData.transform([(share, 0) for share in recall])
    assert abs(points[0][0] - points[2][0]) > figure.bbox.width / 4


@pytest.mark.parametrize(
    "num_classes", [2, 10, *(pytest.param(number, marks=pytest.mark.slow) for number in (47, 100))]
)
def test_cells_of_the_confusion_matrix_keep_their_size_beside_long_names(num_classes: int) -> None:
    labels = ClassLabels.of([f"great crested flycatcher of kind {k}" for k in range(num_classes)])
    figure = draw_confusion(report_of(np.eye(num_classes, dtype=int)), labels)
    assert figure is not None
    with house_style():
        pixels_of(figure)
    axes = figure.axes[0]
    cell = axes.get_window_extent().width / num_classes
    assert cell > (50 if num_classes <= 20 else 12)
    inside = [label.get_window_extent() for label in (*axes.get_xticklabels(), *axes.get_yticklabels())]
    assert len(inside) == 2 * num_classes
    assert all(box.x0 >= 0 and box.y0 >= 0 for box in inside)


def test_one_error_among_many_examples_can_be_seen() -> None:
    figure = draw_confusion(report_of(np.array([[100_000, 1], [0, 100_000]])), labels_of(2))
    pixels = pixels_of(figure)
    assert figure is not None
    column, row = figure.axes[0].transData.transform((1.3, 0.3)).astype(int)
    assert pixels[len(pixels) - row, column].min() < 220


@pytest.mark.parametrize(
    ("highest", "numbers"), [(7, ["1", "2", "5", "10"]), (20_000, ["1", "10", "100", "1,000", "10,000"])]
)
def test_colours_of_the_confusion_matrix_are_explained_by_round_numbers(highest: int, numbers: list[str]) -> None:
    figure = draw_confusion(report_of(np.eye(2, dtype=int) * highest), labels_of(2))
    pixels_of(figure)
    assert figure is not None
    assert [label.get_text() for label in figure.axes[1].get_yticklabels()] == numbers


def test_confusions_of_very_many_classes_are_listed() -> None:
    counts = np.eye(1000, dtype=int) * 50
    counts[3, 7], counts[999, 0] = 4, 1
    figure = draw_confusion(report_of(counts), labels_of(1000))
    pixels_of(figure)
    assert figure is not None
    assert [bar.get_width() for bar in figure.axes[0].patches] == [4, 1]  # type: ignore[attr-defined]
    title = "The 2 most frequent confusions of 1,000 classes on 50,005 test examples"
    assert {"name 3 → name 7", "name 999 → name 0", "4", title} <= set(texts_of(figure))
    right = draw_confusion(report_of(np.eye(1000, dtype=int)), labels_of(1000))
    pixels_of(right)
    assert right is not None
    assert "No errors on 1,000 test examples" in texts_of(right)
