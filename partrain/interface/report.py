"""The outcome of an evaluation, as the Python API returns it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Report:
    """The outcome of an evaluation on N examples of E classes.

    Attributes
    ----------
    accuracy : the share of examples that were classified correctly, 0 to 1.
    loss : the mean cross-entropy, in nats.
    class_names : the names of the E classes.
    recall, precision : the recall and precision of each class, float64 (E,); NaN for a class without examples, or
        without predictions.
    confusion : int64 (E,E), rows for true classes, columns for predicted classes; None with more than 1,000 classes.
    labels, predictions : int64 (N,).
    """

    accuracy: float
    loss: float
    class_names: tuple[str, ...]
    recall: NDArray[np.float64]
    precision: NDArray[np.float64]
    confusion: NDArray[np.int64] | None
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]


def report_from(figures: Mapping[str, Any]) -> Report:
    """Return the report that the plain values of a classification report describe."""
    confusion = figures["confusion"]
    return Report(
        accuracy=figures["accuracy"],
        loss=figures["loss"],
        class_names=tuple(figures["classes"]),
        recall=np.array(figures["recall"], np.float64),
        precision=np.array(figures["precision"], np.float64),
        confusion=None if confusion is None else np.array(confusion, np.int64),
        labels=np.array(figures["labels"], np.int64),
        predictions=np.array(figures["predictions"], np.int64),
    )
