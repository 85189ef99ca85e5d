"""Loads the data set that a configuration names, divided into training, validation and test examples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from partrain.config.schema.data import SOURCES_WITH_PATH, Data, Fold
from partrain.data import cifar10
from partrain.data.arrays import load_arrays
from partrain.data.catalog import CATALOG, DataUnavailable, load_named
from partrain.data.dataset import Dataset, Split, build_dataset
from partrain.data.folds import folds_of
from partrain.data.idx import load_idx_directory
from partrain.data.image_directory_cache import load_image_directory
from partrain.data.label_noise import flip_labels
from partrain.data.split_name import SplitName
from partrain.errors import ConfigError, DataError, ResourceError
from partrain.system.machine import available_processors
from partrain.system.memory_limits import require_memory

# The data sets whose files partrain knows, and the function that loads each.
NAMED = dict.fromkeys(CATALOG, load_named) | {cifar10.NAME: cifar10.load_cifar10}

# The number of synthetic digits: as many as MNIST has.
SYNTHETIC_TRAIN, SYNTHETIC_TEST = 60_000, 10_000


def load_dataset(
    data: Data,
    seed: int,
    *,
    say: Callable[[str], None],
    warn: Callable[[str], None],
    dataset: Dataset | None = None,
) -> Dataset:
    """Load the data set that a configuration names, with the splits "train", "validation" and "test".

    Parameters
    ----------
    data, seed : the section `data` and the seed of the configuration; the seed decides how synthetic digits look and
        which labels are made wrong.
    say : called with a line before anything that takes time.
    warn : called with a message if other data are used than those that `data` names.
    dataset : the source, if it is in memory already; then nothing is read.

    Raises
    ------
    DataError
        A file is wrong; or, as DataUnavailable and with `data.when_unavailable: error`, the data set is not available.
    ConfigError
        There are fewer examples than the configuration asks for.
    ResourceError
        There is too little memory or disk.
    """
    source = dataset or load_source(data, seed, say=say, warn=warn)
    divided = replace(source, splits=divide(source, data.train_examples, data.validation_examples))
    if data.fold is not None:
        has_both = not source.has_own_validation or data.validation_examples is not None
        num_examples = divided.train.size + (divided.validation.size if has_both else 0)
        divided = _take_fold(divided, source.train.part(0, num_examples), data.fold, seed)
    if not data.label_noise:
        return divided
    labels = flip_labels(divided.train.labels, data.label_noise, len(divided.class_names), seed)
    return replace(divided, splits={**divided.splits, SplitName.TRAIN: replace(divided.train, labels=labels)})


def _take_fold(dataset: Dataset, examples: Split, fold: Fold, seed: int) -> Dataset:
    """Return a data set whose validation examples are one fold of `examples`, and whose training examples the others.

    The examples of both keep their order.
    """
    folds_N = folds_of(examples.labels, fold.of, seed, dataset.class_names)
    advice = "The examples of a fold are copied. Use fewer examples."
    require_memory(examples.images.nbytes, f"fold {fold.number} of {dataset.source}", advice)
    is_validation_N = folds_N == fold.number
    splits = {
        SplitName.TRAIN: examples.take(np.flatnonzero(~is_validation_N)),
        SplitName.VALIDATION: examples.take(np.flatnonzero(is_validation_N)),
        SplitName.TEST: dataset.test,
    }
    return replace(dataset, splits=splits, has_own_validation=False, num_validation=None)


def moved_data(data: Data, path: str | None) -> Data:
    """Return the section `data` of a run whose data has moved to another path; None: it has not.

    Raises
    ------
    ConfigError
        The data set has no path.
    """
    if path is None:
        return data
    if data.name not in SOURCES_WITH_PATH:
        where = "in a Python program" if data.name == "memory" else "where PARTRAIN_DATA_DIR says"
        raise ConfigError(f"data {path}: the run was trained on {data.name}, whose examples are {where}, not at a path")
    return data.model_copy(update={"path": path})


def divide(source: Dataset, num_train: int | None, num_validation: int | None) -> dict[SplitName, Split]:
    """Divide the training examples of a source into training and validation; the test examples stay.

    The first examples are for training, those after them for validation, and the rest is not used. If neither number
    is given, the source may say how many are for validation; else it is a sixth. Validation examples beside the
    training examples are all used, unless `num_validation` is given.

    Raises
    ------
    ConfigError
        There are fewer examples than asked for.
    """
    available = source.train.size
    if source.has_own_validation and num_validation is None:
        num_train = available if num_train is None else num_train
        if num_train > available:
            raise ConfigError(
                f"data.train_examples asks for {num_train:,} examples, but {source.name} has {available:,}; make it "
                "smaller"
            )
        return {
            SplitName.TRAIN: source.train.part(0, num_train),
            SplitName.VALIDATION: source.validation,
            SplitName.TEST: source.test,
        }
    if num_train is None and num_validation is None:
        num_validation = source.num_validation
    if num_train is None:
        num_validation = available // 6 if num_validation is None else num_validation
        num_train = max(1, available - num_validation)
    elif num_validation is None:
        num_validation = max(0, available - num_train)
    last = num_train + num_validation
    if last > available:
        raise ConfigError(
            f"data.train_examples and data.validation_examples ask for {num_train:,} + {num_validation:,} "
            f"examples, but {source.name} has {available:,} for both; make them smaller"
        )
    return {
        SplitName.TRAIN: source.train.part(0, num_train),
        SplitName.VALIDATION: source.train.part(num_train, last),
        SplitName.TEST: source.test,
    }


def load_source(data: Data, seed: int, *, say: Callable[[str], None], warn: Callable[[str], None]) -> Dataset:
    """Load a data set as its source has it: with the splits "train" and "test", and maybe "validation".

    The parameters and exceptions are those of `load_dataset`.
    """
    if data.name in NAMED:
        try:
            return NAMED[data.name](data.name, say=say)
        except DataUnavailable as unavailable:
            if data.when_unavailable == "error":
                raise
            warn(_replacement_warning(data.name, unavailable))
            return _draw_synthetic(data, seed, say)
    if data.name == "synthetic-digits":
        return _draw_synthetic(data, seed, say)
    if data.name == "memory":
        raise DataError(
            "data.name: memory: these examples were arrays of a Python program, and are not in a file. "
            "Pass them again from Python: partrain.train(config, data=...), partrain.open_run(path).evaluate(...)."
        )
    assert data.path is not None
    if data.name == "folder":
        assert data.size is not None
        assert data.channels is not None
        return load_image_directory(
            data.path,
            data.size,
            data.channels,
            data.on_broken or "error",
            num_decoders=available_processors(),
            say=say,
            warn=warn,
        )
    if data.name == "arrays":
        with_validation = data.validation_examples is None and data.fold is None
        return load_arrays(data.path, data.layout, with_validation=with_validation, say=say)
    return load_idx_directory(data.path)


def _draw_synthetic(data: Data, seed: int, say: Callable[[str], None]) -> Dataset:
    # Imported here because it imports Numba, which a command that computes nothing must not.
    from partrain.data.synthetic_digits import draw_digits

    num_train, num_test = _num_synthetic(data)
    say(f"drawing {num_train + num_test:,} synthetic digits")
    try:
        splits = {
            SplitName.TRAIN: Split(*draw_digits(0, num_train, seed=seed, split="train")),
            SplitName.TEST: Split(*draw_digits(0, num_test, seed=seed, split="test")),
        }
    except MemoryError:
        raise ResourceError(
            f"{num_train:,} synthetic digits do not fit into memory. "
            "Make data.train_examples or data.validation_examples smaller."
        ) from None
    return build_dataset("synthetic-digits", "synthetic-digits", splits, class_names=tuple("0123456789"))


def _num_synthetic(data: Data) -> tuple[int, int]:
    """Return how many digits to draw for training and validation together, and for the test."""
    if data.train_examples is None or data.validation_examples is None:
        return max(SYNTHETIC_TRAIN, data.train_examples or 0), SYNTHETIC_TEST
    num_train = data.train_examples + data.validation_examples
    return num_train, min(SYNTHETIC_TEST, num_train)


def _replacement_warning(name: str, unavailable: DataUnavailable) -> str:
    frame = "*" * 100
    return (
        f"THIS IS NOT {name.upper()}\n{frame}\n"
        "Synthetic digits, which partrain generates, are used instead.\n"
        f"The results say nothing about {name}.\n\n"
        f"{unavailable}\n\n"
        "To stop instead of training on other data, set `data.when_unavailable: error`.\n"
        f"{frame}"
    )
