from __future__ import annotations

from typing import Any

import numpy as np

from partrain.analysis.plots.class_labels import ClassLabels
from partrain.analysis.plots.class_plots import draw_confusion, draw_recall
from tests.analysis.plots.rendering import pixels_of, texts_of


def report_of(counts: np.ndarray) -> dict[str, Any]:
    sums = counts.sum(axis=1)
    recall = [counts[k, k] / n if n else None for k, n in enumerate(sums.tolist())]
    return {"recall": recall, "confusion": counts.tolist(), "num_examples": int(counts.sum()), "split": "test"}


def labels_of(num_classes: int) -> ClassLabels:
    return ClassLabels.of([f"name {k}" for k in range(num_classes)])


def test_recall_of_each_class_is_a_labelled_bar() -> None:
    figure = draw_recall(report_of(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])), labels_of(3))
    pixels_of(figure)
    assert [bar.get_width() for bar in figure.axes[0].patches] == [0.75, 1, 0]  # type: ignore[attr-defined]
    expected = {"75.00%", "100.00%", "no examples", "name 0", "name 2", "Recall per class, 8 test examples"}
    assert expected <= set(texts_of(figure))


def test_with_many_classes_only_the_lowest_recalls_are_drawn() -> None:
    counts = np.diag(np.arange(1, 101))
    counts[:, 0] += 10
    counts[99] = 0
    figure = draw_recall(report_of(counts), labels_of(100))
    pixels_of(figure)
    widths = [bar.get_width() for bar in figure.axes[0].patches]  # type: ignore[attr-defined]
    assert len(widths) == 30
    assert widths == sorted(widths)
    assert "name 1" in texts_of(figure)
    assert "name 99" not in texts_of(figure)


def test_confusion_matrix_shows_the_number_of_each_pair() -> None:
    figure = draw_confusion(report_of(np.array([[970, 12, 0], [3, 1000, 0], [0, 0, 0]])), labels_of(3))
    pixels_of(figure)
    assert figure is not None
    texts = texts_of(figure)
    assert {"970", "12", "3", "1000", "true class", "predicted class", "Confusion matrix, 1,985 test examples"} <= {
        *texts
    }


def test_confusion_matrix_of_many_classes_has_no_numbers() -> None:
    counts = np.eye(60, dtype=int) * 1234
    figure = draw_confusion(report_of(counts), labels_of(60))
    pixels_of(figure)
    assert figure is not None
    assert "1234" not in texts_of(figure)
    assert draw_confusion(report_of(counts) | {"confusion": None}, labels_of(60)) is None
