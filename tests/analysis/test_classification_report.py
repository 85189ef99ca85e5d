from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partrain.analysis import classification_report as module
from partrain.analysis.classification_report import classification_report, confusion_matrix, describe
from partrain.parallel.split_evaluation import Evaluation


def evaluation_of(labels: list[int], predictions: list[int], confidences: list[float] | None = None) -> Evaluation:
    n = len(labels)
    return Evaluation(
        labels_N=np.array(labels, np.int64),
        predictions_N=np.array(predictions, np.int64),
        losses_N=np.linspace(0, 1, n),
        confidences_N=np.array(confidences if confidences is not None else np.linspace(0.3, 0.9, n)),
    )


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60))
def test_figures_are_those_of_counting_one_by_one(pairs: list[tuple[int, int]]) -> None:
    labels, predictions = [label for label, _ in pairs], [prediction for _, prediction in pairs]
    report = classification_report(evaluation_of(labels, predictions), "abcde")
    for k in range(5):
        right = pairs.count((k, k))
        assert report["support"][k] == labels.count(k)
        assert report["recall"][k] == (right / labels.count(k) if k in labels else None)
        assert report["precision"][k] == (right / predictions.count(k) if k in predictions else None)
        assert report["confusion"][k] == [pairs.count((k, j)) for j in range(5)]
    assert report["accuracy"] == pytest.approx(sum(a == b for a, b in pairs) / len(pairs))
    assert np.sum(report["confusion"]) == report["num_examples"] == len(pairs)
    assert (report["labels"], report["predictions"]) == (labels, predictions)
    json.dumps(report, allow_nan=False)


def test_example_that_is_counted_twice_is_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "confusion_matrix", lambda *given: 2 * confusion_matrix(*given))
    with pytest.raises(AssertionError, match="twice"):
        classification_report(evaluation_of([0, 1], [0, 1]), "ab")


def test_examples_to_look_at_are_the_least_certain_and_the_most_confidently_wrong() -> None:
    report = classification_report(
        evaluation_of([0, 1, 0, 1, 0], [0, 0, 1, 1, 1], [0.9, 0.6, 0.8, 0.5, float("nan")]), "ab"
    )
    assert [e["index"] for e in report["least_certain"]] == [4, 3, 1, 2, 0]
    assert report["most_confidently_wrong"][0] == {"index": 2, "label": 0, "prediction": 1, "probability": 0.8}
    assert [e["index"] for e in report["most_confidently_wrong"]] == [2, 1, 4]


def test_lists_of_examples_are_short_and_of_equal_ones_begin_with_the_first() -> None:
    report = classification_report(evaluation_of([0] * 100, [1] * 100, [0.5] * 100), "ab")
    for key in ("least_certain", "most_confidently_wrong"):
        assert [e["index"] for e in report[key]] == list(range(25))


def test_confusion_of_very_many_classes_is_left_out_and_the_figures_stay() -> None:
    report = classification_report(evaluation_of([0, 70_000 - 1], [5, 70_000 - 1]), [str(k) for k in range(70_000)])
    assert report["confusion"] is None
    assert (report["recall"][0], report["recall"][-1], report["precision"][5]) == (0, 1, 0)


def lines_of(report: dict[str, Any]) -> list[str]:
    return describe(report).splitlines()


def test_table_shows_each_class_the_confusions_and_the_examples() -> None:
    lines = lines_of(classification_report(evaluation_of([0, 1, 1, 2], [0, 1, 0, 2], [0.9, 0.8, 0.7, 0.6]), "abcd"))
    assert lines[0] == "4 examples: accuracy 75.00%, loss 0.5000"
    assert "a             1  100.00%     50.00%" in lines
    assert "d             0        -          -" in lines
    assert "b  1  1  0  0" in lines
    assert lines[-1] == "2          b           a       70.00%"


def test_table_of_many_classes_shows_the_most_frequent_confusions() -> None:
    labels, predictions = [3] * 5 + [4] * 2 + [5], [6] * 5 + [7] * 2 + [5]
    names = [f"class {k}" for k in range(21)]
    lines = lines_of(classification_report(evaluation_of(labels, predictions), names))
    first = lines.index("most frequent confusions")
    assert lines[first + 3].split() == ["class", "3", "class", "6", "5"]
    assert lines[first + 4].split() == ["class", "4", "class", "7", "2"]
    all_right = lines_of(classification_report(evaluation_of([3], [3]), names))
    assert "most frequent confusions" not in all_right
    assert "most confidently wrong" not in all_right


def test_names_of_classes_cannot_control_the_terminal() -> None:
    assert "\033" not in describe(classification_report(evaluation_of([0], [1]), ["\033[2J", "b"]))
