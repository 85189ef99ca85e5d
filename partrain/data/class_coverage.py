"""Says which classes have no examples to train on or to validate with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from partrain.data.dataset import Dataset, Split
from partrain.system.terminal_text import printable

# A message names this many classes.
MAX_LISTED = 5


def missing_training_examples(dataset: Dataset, num_validation: int | None) -> list[str]:
    """Return warnings about examples that the training needs and the data set does not have.

    Parameters
    ----------
    dataset : with the splits "train" and "validation".
    num_validation : the number of validation examples that the configuration asks for; None: as many as there are.
    """
    warnings = []
    if untrained := _classes_without(dataset, dataset.train):
        warnings.append(
            f"there are no training examples of {_listed(untrained)}: the network cannot learn "
            f"{'this class' if len(untrained) == 1 else 'these classes'}"
        )
    if num_validation is None and not dataset.validation.size:
        warnings.append(
            "there are no validation examples, so nothing tells which checkpoint is best; set "
            "data.validation_examples, or add examples (0 says that there are to be none)"
        )
    return warnings


def unvalidated_classes(dataset: Dataset, num_validation: int | None) -> str | None:
    """Return a message that names the classes with training examples but no validation examples; None without any.

    None also if there are no validation examples at all, or they are simply the last ones: then the order of the file
    says what is in them.

    Parameters
    ----------
    dataset, num_validation : as for `missing_training_examples`.
    """
    if not dataset.validation.size or num_validation is not None or dataset.num_validation is None:
        return None
    untrained = set(_classes_without(dataset, dataset.train))
    names = [name for name in _classes_without(dataset, dataset.validation) if name not in untrained]
    return f"there are no validation examples of {_listed(names)}" if names else None


def _classes_without(dataset: Dataset, split: Split) -> list[str]:
    counts = np.bincount(split.labels, minlength=len(dataset.class_names))
    return [dataset.class_names[label] for label in np.flatnonzero(counts == 0).tolist()]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_LISTED:,} more classes" if len(names) > MAX_LISTED else ""
    return ", ".join(map(printable, names[:MAX_LISTED])) + more
