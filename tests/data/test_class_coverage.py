from __future__ import annotations

import numpy as np
import pytest

from partrain.data.class_coverage import missing_training_examples, unvalidated_classes
from partrain.data.dataset import Dataset, Split, build_dataset
from partrain.data.split_name import SplitName


def dataset(
    train: list[int], validation: list[int], names: tuple[str, ...] = ("ant", "bee", "cat"), num_chosen: int | None = 1
) -> Dataset:
    def split(labels: list[int]) -> Split:
        return Split(np.zeros((len(labels), 1, 2, 2), np.uint8), np.array(labels, np.int64))

    source = build_dataset("x", "x", {SplitName.TRAIN: split([*train, *validation]), SplitName.TEST: split([0])}, names)
    return Dataset(
        "x",
        "x",
        {SplitName.TRAIN: split(train), SplitName.VALIDATION: split(validation), SplitName.TEST: split([0])},
        names,
        source.digest,
        num_validation=num_chosen,
    )


@pytest.mark.parametrize(
    ("train", "validation", "num_validation", "expected"),
    [
        ([0, 1, 2], [1], None, []),
        ([0, 0], [0], None, ["there are no training examples of bee, cat: the network cannot learn these classes"]),
        ([0, 1], [2], 1, ["there are no training examples of cat: the network cannot learn this class"]),
        ([0, 1, 2], [], None, ["there are no validation examples, so nothing tells which checkpoint is best"]),
        ([0, 1, 2], [], 0, []),
    ],
)
def test_classes_without_training_examples_and_a_missing_validation_are_warnings(
    train: list[int], validation: list[int], num_validation: int | None, expected: list[str]
) -> None:
    warnings = missing_training_examples(dataset(train, validation), num_validation)
    assert len(warnings) == len(expected)
    for warning, beginning in zip(warnings, expected, strict=True):
        assert warning.startswith(beginning)


def test_many_classes_are_counted() -> None:
    names = tuple(f"class {k}" for k in range(20))
    (warning,) = missing_training_examples(dataset([0], [0], names), None)
    assert "class 1, class 2, class 3, class 4, class 5 and 14 more classes: the network" in warning


def test_trained_class_that_is_not_validated_is_named_unless_the_number_was_chosen() -> None:
    assert unvalidated_classes(dataset([0, 1], [1]), None) == "there are no validation examples of ant"
    assert unvalidated_classes(dataset([0, 1], [1]), 1) is None
    assert unvalidated_classes(dataset([0, 1], [0, 1]), None) is None
    assert unvalidated_classes(dataset([0, 1], []), None) is None
    assert unvalidated_classes(dataset([0, 1], [1], num_chosen=None), None) is None
