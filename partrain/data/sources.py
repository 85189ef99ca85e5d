"""From the configuration's `data.name` to the data set, or to the one that stands in for it."""

from __future__ import annotations

from collections.abc import Callable

from partrain.config.schema.data import Data
from partrain.data import cifar10
from partrain.data.arrays import load_arrays
from partrain.data.catalog import CATALOG, DataUnavailable, load_named
from partrain.data.dataset import Dataset, Split, build_dataset
from partrain.data.idx import load_idx_folder
from partrain.data.packed_folder import load_picture_folder
from partrain.errors import DataError, ResourceError

NAMED = dict.fromkeys(CATALOG, load_named) | {cifar10.NAME: cifar10.load_cifar10}


def load_dataset(
    data: Data,
    *,
    seed: int,
    synthetic_examples: tuple[int, int],
    num_decoders: int,
    say: Callable[[str], None],
    warn: Callable[[str], None],
) -> Dataset:
    """Load the data set that the configuration names.

    Parameters
    ----------
    data : the configuration's `data`.
    seed : decides what the synthetic digits look like.
    synthetic_examples : how many of them to draw, for the training file and for the test file.
    num_decoders : how many threads decode pictures.
    say : gets a line for what takes time.
    warn : gets the message that the data are not the ones that were named.

    Raises
    ------
    DataError
        If a file is wrong, or (as DataUnavailable, with "error") the data set cannot be had.
    """
    if data.name in NAMED:
        try:
            return NAMED[data.name](data.name, say=say)
        except DataUnavailable as unavailable:
            if data.when_unavailable == "error":
                raise
            warn(_replacement_warning(data.name, unavailable))
            return _draw(seed, synthetic_examples, say)
    if data.name == "synthetic-digits":
        return _draw(seed, synthetic_examples, say)
    if data.name == "memory":
        raise DataError(
            "data.name: memory: these examples were arrays of the Python program that trained, and are in no file. "
            "Give them again from Python: partrain.train(config, data=...), partrain.open_run(path).evaluate(...)."
        )
    assert data.path is not None
    if data.name == "folder":
        assert data.size is not None
        assert data.channels is not None
        return load_picture_folder(
            data.path,
            data.size,
            data.channels,
            data.on_broken or "error",
            num_decoders=num_decoders,
            say=say,
            warn=warn,
        )
    return {"idx": load_idx_folder, "arrays": load_arrays}[data.name](data.path)


def _draw(seed: int, num_examples: tuple[int, int], say: Callable[[str], None]) -> Dataset:
    # Here, because it brings Numba, which a command that computes nothing must not import.
    from partrain.data.synthetic_digits import draw_digits

    num_train, num_test = num_examples
    say(f"drawing {num_train + num_test:,} synthetic digits")
    try:
        train = Split(*draw_digits(0, num_train, seed=seed, split="train"))
        test = Split(*draw_digits(0, num_test, seed=seed, split="test"))
    except MemoryError:
        raise ResourceError(
            f"{num_train:,} synthetic digits do not fit into memory. "
            "Make data.train_examples or data.validation_examples smaller."
        ) from None
    return build_dataset("synthetic-digits", "synthetic-digits", train, test, class_names=tuple("0123456789"))


def _replacement_warning(name: str, unavailable: DataUnavailable) -> str:
    frame = "*" * 100
    return (
        f"THIS IS NOT {name.upper()}\n{frame}\n"
        "Synthetic digits, which the program draws itself, are used instead.\n"
        f"Results say nothing about {name}.\n\n"
        f"{unavailable}\n\n"
        "To stop here instead of going on with other data, set `data.when_unavailable: error`.\n"
        f"{frame}"
    )
