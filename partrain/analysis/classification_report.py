"""The figures of an evaluation: of all examples, of each class, and of the examples one should look at.

Shapes: N examples; E classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.analysis.privacy_record import describe_privacy
from partrain.parallel.split_evaluation import Evaluation
from partrain.system.terminal_text import printable, table

# How many examples a list of them holds, and how many of these are printed.
LISTED, PRINTED = 25, 5
# A confusion matrix of more classes is wider than a terminal: then its largest errors are printed.
MOST_PRINTED_CLASSES = 20
# A confusion matrix of more classes is nothing to look at, and its size grows with their square.
MOST_CLASSES = 1000


def classification_report(evaluation: Evaluation, class_names: Sequence[str]) -> dict[str, Any]:
    """Return the figures of an evaluation, as they go into JSON.

    Parameters
    ----------
    evaluation : of N examples.
    class_names : of all E outputs of the network.

    Returns
    -------
    num_examples, accuracy, loss;
    classes : the names;
    support : of each class, the number of its examples;
    recall : of each class, the share of its examples that were predicted to be of it; null without examples;
    precision : of each class, the share of its predictions that were right; null without predictions;
    confusion : E rows for the true classes, E columns for the predicted ones, of numbers of examples; null for
        more than MOST_CLASSES;
    least_certain : examples whose predicted class has the lowest probability: index, label, prediction, probability;
    most_confidently_wrong : wrongly classified examples whose predicted class has the highest probability;
    labels, predictions : of every example, in order.
    """
    E, labels_N, predictions_N = len(class_names), evaluation.labels_N, evaluation.predictions_N
    right_N = predictions_N == labels_N
    support_E, predicted_E, right_E = (
        np.bincount(classes, minlength=E) for classes in (labels_N, predictions_N, labels_N[right_N])
    )
    confusion = None
    if E <= MOST_CLASSES:
        confusion_EE = confusion_matrix(labels_N, predictions_N, E)
        assert confusion_EE.sum() == evaluation.num_examples, "an example was counted twice, or not at all"
        confusion = confusion_EE.tolist()
    # What is no number is the least certain, and no certainty at all.
    certainty_N = np.where(np.isnan(evaluation.confidences_N), -1, evaluation.confidences_N)
    uncertain_first_N = np.argsort(certainty_N, kind="stable")
    certain_first_N = np.argsort(-certainty_N, kind="stable")
    return {
        "num_examples": evaluation.num_examples,
        "accuracy": evaluation.accuracy,
        "loss": evaluation.loss,
        "classes": list(class_names),
        "support": support_E.tolist(),
        "recall": _shares(right_E, support_E),
        "precision": _shares(right_E, predicted_E),
        "confusion": confusion,
        "least_certain": _list_examples(evaluation, uncertain_first_N),
        "most_confidently_wrong": _list_examples(evaluation, certain_first_N[~right_N[certain_first_N]]),
        "labels": labels_N.tolist(),
        "predictions": predictions_N.tolist(),
    }


def confusion_matrix(
    labels_N: NDArray[np.int64], predictions_N: NDArray[np.int64], num_classes: int
) -> NDArray[np.int64]:
    """Count the examples of each pair of true class (row) and predicted class (column)."""
    pairs = np.bincount(labels_N * num_classes + predictions_N, minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes)


def describe(report: Mapping[str, Any]) -> str:
    """Return a report as tables for a terminal."""
    names = [printable(name) for name in report["classes"]]
    counts = [f"{count:,}" for count in report["support"]]
    recall, precision = ([_percent(share) for share in report[key]] for key in ("recall", "precision"))
    lines = [
        f"{report['num_examples']:,} examples: accuracy {report['accuracy']:.2%}, loss {report['loss']:.4f}",
        *([describe_privacy(report["privacy"])] if "privacy" in report else []),
        "",
        *table(("class", "examples", "recall", "precision"), list(zip(names, counts, recall, precision, strict=True))),
    ]
    if len(names) <= MOST_PRINTED_CLASSES:
        lines += ["", "confusion: a row for each true class, a column for each predicted one", ""]
        rows = [(name, *map(str, row)) for name, row in zip(names, report["confusion"], strict=True)]
        lines += table(("", *names), rows)
    elif report["accuracy"] < 1:
        lines += ["", "most frequent confusions", "", *_table_of_confusions(names, report)]
    for key in ("least_certain", "most_confidently_wrong"):
        if report[key]:
            lines += ["", key.replace("_", " "), "", *_table_of_examples(names, report[key][:PRINTED])]
    return "\n".join(lines)


def _shares(parts_E: NDArray[np.int64], wholes_E: NDArray[np.int64]) -> list[float | None]:
    pairs = zip(parts_E.tolist(), wholes_E.tolist(), strict=True)
    return [part / whole if whole else None for part, whole in pairs]


def _list_examples(evaluation: Evaluation, indices: NDArray[np.int64]) -> list[dict[str, Any]]:
    return [
        {
            "index": index,
            "label": int(evaluation.labels_N[index]),
            "prediction": int(evaluation.predictions_N[index]),
            "probability": float(evaluation.confidences_N[index]),
        }
        for index in indices[:LISTED].tolist()
    ]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


def _table_of_confusions(names: Sequence[str], report: Mapping[str, Any]) -> list[str]:
    pairs = zip(report["labels"], report["predictions"], strict=True)
    frequent = Counter(pair for pair in pairs if pair[0] != pair[1]).most_common(PRINTED)
    rows = [(names[label], names[prediction], f"{count:,}") for (label, prediction), count in frequent]
    return table(("truth", "prediction", "examples"), rows)


def _table_of_examples(names: Sequence[str], examples: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [(str(e["index"]), names[e["label"]], names[e["prediction"]], f"{e['probability']:.2%}") for e in examples]
    return table(("index", "truth", "prediction", "probability"), rows)
