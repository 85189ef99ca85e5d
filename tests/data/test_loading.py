from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from partrain.config.schema.data import Data, Fold
from partrain.data.catalog import CATALOG, DataUnavailable, NamedDataset
from partrain.data.dataset import Dataset, Split, build_dataset
from partrain.data.idx import FILE_NAMES
from partrain.data.loading import divide, load_dataset
from partrain.data.split_name import SplitName
from partrain.errors import ConfigError, DataError
from tests.noise_data import noise_examples, write_idx_folder


@pytest.fixture(autouse=True)
def nothing_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the catalogue's data sets unavailable, and the synthetic digits quick to draw."""
    monkeypatch.setenv("PARTRAIN_DATA_DIR", str(tmp_path / "data"))
    for name, entry in list(CATALOG.items()):
        monkeypatch.setitem(CATALOG, name, NamedDataset(entry.sha256, entry.class_names, mirrors=()))

    def draw_digits(first: int, last: int, *, seed: int, split: str) -> tuple[Any, Any]:
        num = last - first
        rng = np.random.default_rng([seed, split == "train"])
        return rng.integers(0, 256, (num, 1, 28, 28), np.uint8), rng.integers(0, 10, num)

    fake = types.SimpleNamespace(draw_digits=draw_digits)
    monkeypatch.setitem(sys.modules, "partrain.data.synthetic_digits", fake)  # type: ignore[arg-type]


def load(
    name: str, path: str | None = None, when_unavailable: str = "error", seed: int = 0
) -> tuple[Dataset, list[str], list[str]]:
    said: list[str] = []
    warned: list[str] = []
    data = Data(
        name=name,
        path=path,
        when_unavailable=when_unavailable,  # type: ignore[arg-type]
        train_examples=None if path else 50,
        validation_examples=0 if path else 10,
    )
    dataset = load_dataset(data, seed, say=said.append, warn=warned.append)
    return dataset, said, warned


def test_synthetic_digits_are_drawn_in_the_numbers_asked_for_without_a_warning() -> None:
    dataset, said, warned = load("synthetic-digits")
    assert dataset.name == dataset.source == "synthetic-digits"
    assert [(name, split.size) for name, split in dataset.splits.items()] == [
        (SplitName.TRAIN, 50),
        (SplitName.VALIDATION, 10),
        (SplitName.TEST, 60),
    ]
    assert dataset.image_shape == (1, 28, 28)
    assert dataset.class_names == tuple("0123456789")
    assert said == ["drawing 120 synthetic digits"]
    assert warned == []


def test_another_seed_draws_another_data_set() -> None:
    digests = [load("synthetic-digits", seed=seed)[0].digest for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_synthetic_digits_stand_in_under_their_own_name_with_a_framed_warning(name: str, tmp_path: Path) -> None:
    dataset, _, warned = load(name, when_unavailable="synthetic-digits")
    assert dataset.name == dataset.source == "synthetic-digits"
    assert dataset.digest == load("synthetic-digits")[0].digest
    (warning,) = warned
    lines = warning.strip().splitlines()
    assert f"NOT {name.upper()}" in lines[0]
    assert lines[1] == lines[-1] == "*" * 100
    assert "Synthetic digits" in lines[2]
    assert f"{tmp_path / 'data' / name}: No such file" in warning
    assert f"{FILE_NAMES[0]}.gz" in warning
    assert f"into {tmp_path / 'data' / name}" in warning
    assert "data.when_unavailable: error" in warning


def test_with_error_nothing_stands_in() -> None:
    with pytest.raises(DataUnavailable, match="The data set mnist is not available"):
        load("mnist", when_unavailable="error")


def test_nothing_stands_in_for_a_broken_file(tmp_path: Path) -> None:
    (tmp_path / "data" / "mnist").mkdir(parents=True)
    (tmp_path / "data" / "mnist" / FILE_NAMES[0]).write_bytes(b"")
    with pytest.raises(DataError, match="is empty"):
        load("mnist", when_unavailable="synthetic-digits")


def test_idx_and_arrays_take_the_path(tmp_path: Path) -> None:
    write_idx_folder(tmp_path / "idx", noise_examples(60), noise_examples(20, 1))
    from_idx, said, warned = load("idx", str(tmp_path / "idx"))
    arrays = {
        f"{name}_{what}": getattr(getattr(from_idx, name), what)
        for name in ("train", "test")
        for what in ("images", "labels")
    }
    np.savez(tmp_path / "arrays.npz", **arrays)
    from_arrays, _, _ = load("arrays", str(tmp_path / "arrays.npz"))
    assert (from_idx.name, from_arrays.name) == ("idx", "arrays")
    assert from_idx.digest == from_arrays.digest
    assert said == warned == []


def test_examples_that_were_in_memory_are_asked_for() -> None:
    with pytest.raises(DataError, match=r"were arrays of a Python program.* partrain\.open_run"):
        load("memory")


def test_importing_it_does_not_import_numba() -> None:
    program = "import sys, partrain.data.loading; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


# ---- division into splits


def source_of(num_train: int, num_test: int = 7, num_validation: int | None = None) -> Dataset:
    """Return a source whose images and labels are their own numbers."""

    def split(count: int) -> Split:
        numbers = np.arange(count)
        return Split(np.broadcast_to(numbers.astype(np.uint8)[:, None, None, None], (count, 1, 2, 2)).copy(), numbers)

    splits = {SplitName.TRAIN: split(num_train), SplitName.TEST: split(num_test)}
    return build_dataset("mnist", "a test", splits, None, num_validation)


def sizes(num_train: int, **options: Any) -> list[int]:
    splits = divide(source_of(num_train, **options.pop("source", {})), options.pop("train"), options.pop("validation"))
    return [split.size for split in splits.values()]


def test_training_examples_come_first_and_those_for_validation_follow() -> None:
    splits = divide(source_of(60), 50, 9)
    assert list(splits) == [SplitName.TRAIN, SplitName.VALIDATION, SplitName.TEST]
    for name, numbers in (("train", range(50)), ("validation", range(50, 59)), ("test", range(7))):
        split = splits[SplitName(name)]
        assert split.labels.tolist() == split.images[:, 0, 0, 0].tolist() == list(numbers)


@pytest.mark.parametrize(
    ("train", "validation", "expected"),
    [
        (None, None, [50, 10, 7]),
        (45, None, [45, 15, 7]),
        (60, None, [60, 0, 7]),
        (None, 0, [60, 0, 7]),
        (None, 59, [1, 59, 7]),
        (1, 0, [1, 0, 7]),
        (50, 10, [50, 10, 7]),
    ],
)
def test_what_the_configuration_leaves_open_follows_from_the_source(
    train: int | None, validation: int | None, expected: list[int]
) -> None:
    assert sizes(60, train=train, validation=validation) == expected


def test_source_may_say_how_many_examples_are_for_validation() -> None:
    assert sizes(60, train=None, validation=None, source={"num_validation": 3}) == [57, 3, 7]
    assert sizes(60, train=None, validation=8, source={"num_validation": 3}) == [52, 8, 7]


def test_a_source_of_few_examples_has_none_for_validation() -> None:
    assert sizes(5, train=None, validation=None) == [5, 0, 7]


@pytest.mark.parametrize(("train", "validation"), [(61, None), (51, 10), (None, 60), (None, 75)])
def test_more_examples_than_there_are_is_an_error_that_tells_the_numbers(
    train: int | None, validation: int | None
) -> None:
    with pytest.raises(ConfigError) as caught:
        sizes(60, train=train, validation=validation)
    message = str(caught.value)
    asked = {"data.train_examples": train, "data.validation_examples": validation}
    for words in (*asked, *(str(value) for value in asked.values() if value is not None), "mnist", "60"):
        assert words in message
    assert "-" not in message  # a negative number that the user did not give


def test_label_noise_changes_training_labels_alone_and_not_the_digest(tmp_path: Path) -> None:
    write_idx_folder(tmp_path, noise_examples(60), noise_examples(20, 1))
    plain, noisy = (
        load_dataset(
            Data(name="idx", path=str(tmp_path), validation_examples=1, label_noise=noise), 0, say=print, warn=print
        )
        for noise in (0.0, 0.5)
    )
    assert (plain.train.labels != noisy.train.labels).sum() == round(0.5 * plain.train.size)
    for name in (SplitName.VALIDATION, SplitName.TEST):
        np.testing.assert_array_equal(plain.splits[name].labels, noisy.splits[name].labels)
    assert plain.digest == noisy.digest


def test_each_example_is_for_validation_in_one_fold_and_for_training_in_the_others() -> None:
    def load_fold(number: int) -> Dataset:
        fold = Fold(number=number, of=3)
        data = Data(name="synthetic-digits", train_examples=80, validation_examples=20, fold=fold)
        return load_dataset(data, 0, say=lambda text: None, warn=lambda text: None)

    def rows(split: Split) -> list[bytes]:
        return [image.tobytes() for image in split.images]

    folds = [load_fold(number) for number in (1, 2, 3)]
    everything = {row for dataset in folds for row in rows(dataset.validation)}
    assert len(everything) == sum(dataset.validation.size for dataset in folds) == 100
    for dataset in folds:
        assert set(rows(dataset.train)) == everything - set(rows(dataset.validation))
        # The resolved configuration names the sizes of the fold, and gives the same fold.
        data = Data(
            name="synthetic-digits",
            train_examples=dataset.train.size,
            validation_examples=dataset.validation.size,
            fold=Fold(number=1, of=3),
        )
        again = load_dataset(data, 0, say=lambda text: None, warn=lambda text: None)
        assert rows(again.validation) == rows(folds[0].validation)
