"""The report of an evaluation: totals, figures per class, and the examples worth looking at.

Shapes: N examples; E classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.analysis.privacy_record import describe_privacy
from partrain.data.dataset import Split
from partrain.parallel.split_evaluation import Evaluation
from partrain.system.terminal_text import loss_text, printable, table

# The length of the lists of examples, and how many of each are printed.
MAX_LISTED, MAX_PRINTED = 25, 5
# A confusion matrix of more classes is wider than a terminal; then only the most frequent confusions are printed.
MAX_PRINTED_CLASSES = 20
# The size of the confusion matrix grows with the square of the number of classes.
MAX_CLASSES = 1000


def classification_report(
    evaluation: Evaluation, class_names: Sequence[str], examples: Split | None = None
) -> dict[str, Any]:
    """Return the figures of an evaluation, ready for JSON.

    Parameters
    ----------
    evaluation : the evaluation of N examples.
    class_names : the names of the E outputs of the network.
    examples : the N examples, if the lists are to name their files.

    Returns
    -------
    num_examples, accuracy, loss;
    classes : the names;
    support : the number of examples of each class;
    recall : the share of the examples of each class that were predicted correctly; null without examples;
    precision : the share of the predictions of each class that were correct; null without predictions;
    confusion : numbers of examples, E rows for the true classes, E columns for the predicted classes; null for more
        than MAX_CLASSES classes;
    least_certain : the examples whose predicted class has the lowest probability: index, file (if the examples are
        files), label, prediction and probability;
    most_confidently_wrong : the misclassified examples whose predicted class has the highest probability;
    labels, predictions : the labels and predictions of all examples, in order.
    """
    E, labels_N, predictions_N = len(class_names), evaluation.labels_N, evaluation.predictions_N
    correct_N = predictions_N == labels_N
    support_E, predicted_E, correct_E = (
        np.bincount(classes, minlength=E) for classes in (labels_N, predictions_N, labels_N[correct_N])
    )
    confusion = None
    if E <= MAX_CLASSES:
        confusion_EE = confusion_matrix(labels_N, predictions_N, E)
        assert confusion_EE.sum() == evaluation.num_examples, "an example was counted twice, or not at all"
        confusion = confusion_EE.tolist()
    # NaN counts as the lowest certainty.
    certainty_N = np.where(np.isnan(evaluation.confidences_N), -1, evaluation.confidences_N)
    uncertain_first_N = np.argsort(certainty_N, kind="stable")
    certain_first_N = np.argsort(-certainty_N, kind="stable")
    return {
        "num_examples": evaluation.num_examples,
        "accuracy": evaluation.accuracy,
        "loss": evaluation.loss,
        "classes": list(class_names),
        "support": support_E.tolist(),
        "recall": _shares(correct_E, support_E),
        "precision": _shares(correct_E, predicted_E),
        "confusion": confusion,
        "least_certain": _list_examples(evaluation, uncertain_first_N, examples),
        "most_confidently_wrong": _list_examples(evaluation, certain_first_N[~correct_N[certain_first_N]], examples),
        "labels": labels_N.tolist(),
        "predictions": predictions_N.tolist(),
    }


def confusion_matrix(
    labels_N: NDArray[np.int64], predictions_N: NDArray[np.int64], num_classes: int
) -> NDArray[np.int64]:
    """Count the examples of each pair of true class (row) and predicted class (column)."""
    pairs = np.bincount(labels_N * num_classes + predictions_N, minlength=num_classes * num_classes)
    return pairs.reshape(num_classes, num_classes)


def describe(report: Mapping[str, Any]) -> str:
    """Return a report as text for a terminal."""
    names = [printable(name) for name in report["classes"]]
    counts = [f"{count:,}" for count in report["support"]]
    recall, precision = ([_percent(share) for share in report[key]] for key in ("recall", "precision"))
    lines = [
        f"{report['num_examples']:,} examples: accuracy {report['accuracy']:.2%}, loss {loss_text(report['loss'])}",
        *([describe_privacy(report["privacy"])] if "privacy" in report else []),
        "",
        *table(("class", "examples", "recall", "precision"), list(zip(names, counts, recall, precision, strict=True))),
    ]
    if len(names) <= MAX_PRINTED_CLASSES:
        lines += ["", "confusion matrix (rows: true class, columns: predicted class)", ""]
        rows = [(name, *map(str, row)) for name, row in zip(names, report["confusion"], strict=True)]
        lines += table(("", *names), rows)
    elif report["accuracy"] < 1:
        lines += ["", "most frequent confusions", "", *_table_of_confusions(names, report)]
    for key in ("least_certain", "most_confidently_wrong"):
        if report[key]:
            lines += ["", key.replace("_", " "), "", *_table_of_examples(names, report[key][:MAX_PRINTED])]
    return "\n".join(lines)


def _shares(parts_E: NDArray[np.int64], wholes_E: NDArray[np.int64]) -> list[float | None]:
    pairs = zip(parts_E.tolist(), wholes_E.tolist(), strict=True)
    return [part / whole if whole else None for part, whole in pairs]


def _list_examples(evaluation: Evaluation, indices: NDArray[np.int64], examples: Split | None) -> list[dict[str, Any]]:
    return [
        {
            "index": index,
            **({} if examples is None else examples.file_entry(index)),
            "label": int(evaluation.labels_N[index]),
            "prediction": int(evaluation.predictions_N[index]),
            "probability": float(evaluation.confidences_N[index]),
        }
        for index in indices[:MAX_LISTED].tolist()
    ]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


def _table_of_confusions(names: Sequence[str], report: Mapping[str, Any]) -> list[str]:
    pairs = zip(report["labels"], report["predictions"], strict=True)
    frequent = Counter(pair for pair in pairs if pair[0] != pair[1]).most_common(MAX_PRINTED)
    rows = [(names[label], names[prediction], f"{count:,}") for (label, prediction), count in frequent]
    return table(("label", "prediction", "examples"), rows)


def _table_of_examples(names: Sequence[str], examples: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [
        (name_of_example(e), names[e["label"]], names[e["prediction"]], f"{e['probability']:.2%}") for e in examples
    ]
    head = "file" if any("file" in e for e in examples) else "index"
    return table((head, "label", "prediction", "probability"), rows)


def name_of_example(example: Mapping[str, Any]) -> str:
    """Return the file of a listed example, or its index if it is not a file."""
    return printable(str(example.get("file", example["index"])))
