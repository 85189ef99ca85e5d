"""Loads the data set that a configuration names, and divides it into splits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from partrain.config.schema.config import Config
from partrain.config.schema.data import Data
from partrain.data.batches import SplitRange, split_examples
from partrain.data.dataset import Dataset
from partrain.data.label_noise import flip_labels
from partrain.data.sources import load_dataset
from partrain.system.machine import available_processors

# How many synthetic digits there are, as many as MNIST has.
SYNTHETIC_TRAIN, SYNTHETIC_TEST = 60_000, 10_000


def load_splits(
    config: Config, *, say: Callable[[str], None], warn: Callable[[str], None], given: Dataset | None = None
) -> tuple[Dataset, dict[str, SplitRange]]:
    """Load the data that a configuration names, and divide it into "train", "validation" and "test".

    Parameters
    ----------
    say, warn : told what takes time, and what should not be missed.
    given : the data set, where it is in memory already.

    Raises
    ------
    UserError
        The data cannot be used, or there is less than the configuration asks for.
    """
    return load_data(config.data, config.seed, say=say, warn=warn, given=given)


def load_data(
    data: Data,
    seed: int,
    *,
    say: Callable[[str], None],
    warn: Callable[[str], None],
    given: Dataset | None = None,
) -> tuple[Dataset, dict[str, SplitRange]]:
    """Do as `load_splits`, for the `data` and the `seed` of a configuration."""
    dataset = given or load_dataset(
        data,
        seed=seed,
        synthetic_examples=_num_synthetic(data),
        num_decoders=available_processors(),
        say=say,
        warn=warn,
    )
    splits = split_examples(data, dataset)
    if data.label_noise:
        num_train, num_classes = splits["train"].size, len(dataset.class_names)
        labels = flip_labels(dataset.train.labels, num_train, data.label_noise, num_classes, seed)
        dataset = replace(dataset, train=replace(dataset.train, labels=labels))
    return dataset, splits


def _num_synthetic(data: Data) -> tuple[int, int]:
    if data.train_examples is None or data.validation_examples is None:
        return max(SYNTHETIC_TRAIN, data.train_examples or 0), SYNTHETIC_TEST
    num_train = data.train_examples + data.validation_examples
    return num_train, min(SYNTHETIC_TEST, num_train)
