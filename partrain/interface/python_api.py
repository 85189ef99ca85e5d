"""partrain for Python programs and notebooks: arrays in, arrays out.

    run = partrain.train("configs/mnist.yaml", workers=8, data=(images, labels))
    run.evaluate().accuracy
    run.predict(new_images)

What is wrong with what is given is raised as an exception of `partrain.errors`, with the message that the command line
would print. Processes are started without running the calling program's file again, so that a script needs no guard
for partrain's sake; it does for other libraries'.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from partrain.analysis.classification_report import classification_report
from partrain.analysis.evaluation import compute_evaluation, evaluate_run, require_fitting_images
from partrain.analysis.prediction import Classifier
from partrain.analysis.trained_run import TrainedRun, load_trained_run
from partrain.config.reader import parse_config, read_config, read_mapping
from partrain.config.schema.config import Config
from partrain.data.arrays import CLASS_NAMES, NUM_VALIDATION, dataset_of_arrays, split_of_arrays
from partrain.data.dataset import Dataset, build_dataset
from partrain.data.image_files import pixel_values
from partrain.data.picture_folder import split_by_name
from partrain.data.split_name import SplitName
from partrain.errors import ConfigError, DataError, RunError
from partrain.store.metrics_log import read_metrics
from partrain.store.run_directory import RunDirectory
from partrain.store.run_location import RunLocation, check_writable
from partrain.store.run_lookup import find_run
from partrain.store.run_name import validate_run_name
from partrain.system.machine import available_processors
from partrain.system.messages import Messages
from partrain.system.signals import Interrupted, Interruption
from partrain.training.session import Session
from partrain.training.training_run import train_new_run

Examples = tuple[ArrayLike, ArrayLike]

# The name of data sets that are in no file.
IN_MEMORY = "memory"


@dataclass(frozen=True, eq=False)
class Report:
    """What came of an evaluation of N examples of E classes.

    Attributes
    ----------
    accuracy : the share of examples that were classified rightly, 0 to 1.
    loss : the mean cross-entropy, in nats.
    class_names : the E names.
    recall, precision : of each class, float64 (E,); NaN for a class without examples, or without predictions.
    confusion : int64 (E,E), a row for each true class, a column for each predicted one; None for very many classes.
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


class Run:
    """A run: its directory, and what can be computed with what it has learnt.

    Made by `train` and `open_run`. Several may be there of one directory, also while it is trained.

    Attributes
    ----------
    path : the run's directory.
    """

    def __init__(self, path: Path, dataset: Dataset | None = None, *, quiet: bool = False) -> None:
        self.path = path
        self._dataset, self._quiet = dataset, quiet

    def __repr__(self) -> str:
        return f"partrain.open_run({str(self.path)!r})"

    @property
    def config(self) -> Config:
        """The configuration, as it was resolved."""
        return read_config(RunDirectory.open(self.path).config_path)

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl: one for each logged step, and one for each evaluation on the way."""
        return read_metrics(RunDirectory.open(self.path).metrics_path)

    @property
    def summary(self) -> dict[str, Any]:
        """The content of summary.json: times, final, best and test metrics, and the parameters' digest."""
        return RunDirectory.open(self.path).read_summary()

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the network's outputs."""
        return self._trained("last").class_names

    def evaluate(
        self,
        split: str | None = None,
        *,
        data: Examples | None = None,
        checkpoint: str = "last",
        workers: int | None = None,
    ) -> Report:
        """Evaluate the run on a split of its own data, or on other examples.

        Parameters
        ----------
        split : "train", "validation" or "test" (the default) of the data that it was trained on.
        data : images and labels instead, as `train` takes them; nothing is then written into the run.
        checkpoint : "last", "best" (by validation accuracy), or the name of a file.
        workers : processes that compute; default: as many as processors may be used. 0: this one.

        Raises
        ------
        partrain.errors.PartrainError
            Something that was given is wrong, or the run cannot be used. A run on arrays in memory has no data any
            more when it is opened again: then `data` is needed.
        KeyboardInterrupt
            By Ctrl-C.

        Side effects
        ------------
        Writes `evaluation-<split>.json` into the run.
        """
        messages = Messages(quiet=self._quiet)
        num_workers = available_processors() if workers is None else workers
        with _interruptible() as interruption:
            if data is None:
                chosen = SplitName(_choice("split", split or "test", tuple(SplitName)))
                evaluated = evaluate_run(
                    self.path, chosen, checkpoint, num_workers, messages, interruption, self._dataset
                )
                return _report(evaluated.report)
            if split is not None:
                raise ConfigError("evaluate: give a split of the run's own data, or other data, not both")
            trained = self._trained(checkpoint)
            dataset = _dataset_to_evaluate(data, trained)
            evaluation, _ = compute_evaluation(trained, dataset, SplitName.TEST, num_workers, messages, interruption)
        return _report(classification_report(evaluation, trained.class_names))

    def predict(self, images: ArrayLike, *, checkpoint: str = "last") -> NDArray[np.int64]:
        """Return the most probable class of each image, int64 (N,); `class_names` are their names.

        The parameters are those of `predict_proba`.
        """
        classes: NDArray[np.int64] = self.predict_proba(images, checkpoint=checkpoint).argmax(axis=1)
        return classes

    def predict_proba(self, images: ArrayLike, *, checkpoint: str = "last") -> NDArray[np.float64]:
        """Return the probability of each class, float64 (N,E), computed in this process.

        Parameters
        ----------
        images : (N,C,H,W), or (N,H,W) for one channel, in the units of the images that the run was trained on.
        checkpoint : as in `evaluate`.

        Raises
        ------
        partrain.errors.PartrainError
            The images are not as the network takes them, or the run cannot be used.
        """
        trained = self._trained(checkpoint)
        array = np.asarray(images)
        shape = trained.network.input_shape
        fitting = [shape, shape[1:]] if shape[0] == 1 else [shape]
        if array.ndim == 0 or array.shape[1:] not in fitting:
            expected = " or ".join(f"(N, {', '.join(map(str, s))})" for s in fitting)
            raise DataError(f"images: have shape {array.shape}, expected {expected}.")
        array = array.reshape(len(array), *shape)
        if array.dtype != np.uint8 and array.size:
            array = pixel_values(array, trained.image_dtype, "images")
        messages = Messages(quiet=self._quiet)
        return Classifier(trained, messages.say, messages.warn).probabilities(array)

    def _trained(self, checkpoint: str) -> TrainedRun:
        return load_trained_run(self.path, checkpoint, Messages(quiet=self._quiet).warn)


def train(
    config: str | os.PathLike[str] | Mapping[str, Any] | Config,
    *,
    data: Examples | None = None,
    test: Examples | None = None,
    class_names: Sequence[str] | None = None,
    workers: int | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    runs_dir: str | os.PathLike[str] = "runs",
    quiet: bool = False,
) -> Run:
    """Train a new run, as the command `partrain train` does.

    Parameters
    ----------
    config : the path of a YAML file, or what would stand in one, or a configuration.
    data : images and labels to train on, in place of the configuration's `data`. Images are uint8 or float32,
        (N,H,W) or (N,C,H,W), in an order of your choice; labels are whole numbers from 0 on, (N,).
    test : images and labels to test on. Without it the test examples are about a tenth of `data`, and another tenth is
        for validation, chosen by a hash of an example's place. With it, the configuration's `data: {name: memory,
        train_examples: …, validation_examples: …}` may divide `data`; else its last sixth is for validation.
    class_names : a name for each label; "0", "1" … without them.
    workers : processes that compute; default: as many as processors may be used. 0: this one. The result is the same.
    run_dir : the run's own directory, which must not exist.
    runs_dir : else the folder in which one is made.
    quiet : say only warnings and errors on stderr.

    Returns
    -------
    The run, complete; its data stays in memory with it.

    Raises
    ------
    partrain.errors.UserError
        Something that was given is wrong; nothing was made.
    partrain.errors.FailedRun
        The run began and failed.
    KeyboardInterrupt
        By Ctrl-C (SIGINT), after the step was finished and saved; `partrain resume` goes on, where the data is in
        files. By SIGTERM and SIGHUP: SystemExit, likewise. In other threads than the main one signals are not seen.

    Side effects
    ------------
    Makes the run's directory and, while it trains, processes and shared memory. Handlers of signals are put back.
    """
    dataset = None
    if data is not None:
        dataset = _dataset_in_memory(data, test, class_names)
    elif test is not None or class_names is not None:
        raise ConfigError("train: test and class_names go with data")
    resolved = _read(config, in_memory=dataset is not None)
    validate_run_name(resolved.name)
    place = RunLocation(Path(runs_dir), None if run_dir is None else Path(run_dir))
    if place.run_dir is not None and os.path.lexists(place.run_dir):
        raise RunError(f"{place.run_dir}: exists already. Choose another run_dir.")
    check_writable(place.parent)
    num_workers = available_processors() if workers is None else _number_of_workers(workers)
    with _interruptible() as interruption:
        session = Session(num_workers, ["partrain.train", *sys.argv], Messages(quiet=quiet), interruption)
        path = train_new_run(resolved, place, session, dataset=dataset).path
    return Run(path, dataset, quiet=quiet)


def open_run(path: str | os.PathLike[str], *, runs_dir: str | os.PathLike[str] = "runs", quiet: bool = False) -> Run:
    """Open a run that is there.

    Parameters
    ----------
    path : its directory, or its name in `runs_dir`, or "last" or "last~1" for the newest ones there.
    runs_dir : the folder of runs.
    quiet : say only warnings and errors on stderr.

    Raises
    ------
    partrain.errors.RunError
        There is no such run.
    """
    found = find_run(os.fspath(path), Path(runs_dir))
    return Run(RunDirectory.open(found).path, quiet=quiet)


@contextmanager
def _interruptible() -> Iterator[Interruption]:
    """Listen to signals; what they end is raised as Python programs expect it."""
    interruption = Interruption(second_exits=False)
    try:
        with interruption.watching():
            yield interruption
    except Interrupted as interrupted:
        if interrupted.exit_code == 128 + signal.SIGINT:
            raise KeyboardInterrupt(str(interrupted)) from None
        raise SystemExit(interrupted.exit_code) from None


def _read(config: str | os.PathLike[str] | Mapping[str, Any] | Config, *, in_memory: bool) -> Config:
    if isinstance(config, str | os.PathLike):
        source, mapping = os.fspath(config), read_mapping(os.fspath(config))
    elif isinstance(config, Config):
        source, mapping = "the configuration", config.to_mapping()
    elif isinstance(config, Mapping):
        source, mapping = "the configuration", dict(config)
    else:
        raise ConfigError(f"config: is a {type(config).__name__}, expected a path, a mapping, or a configuration")
    if in_memory:
        asked = mapping.get("data")
        if not (isinstance(asked, Mapping) and asked.get("name") == IN_MEMORY):
            mapping["data"] = {"name": IN_MEMORY}
    return parse_config(mapping, source=source)


def _dataset_in_memory(data: Examples, test: Examples | None, class_names: Sequence[str] | None) -> Dataset:
    images, labels = _pair(data, "data")
    num_validation = None
    names = ("data", "data") if test is None else ("data", "test")
    if test is not None:
        train_images, train_labels, (test_images, test_labels) = images, labels, _pair(test, "test")
    else:
        if images.ndim == 0 or labels.ndim == 0 or len(images) != len(labels):
            raise DataError(f"data: there are images of shape {images.shape}, and labels of shape {labels.shape}.")
        splits = np.array([split_by_name(str(place)) for place in range(len(images))])
        places = {split: np.flatnonzero(splits == split) for split in ("train", "validation", "test")}
        if not places["train"].size or not places["test"].size:
            raise DataError(f"data: {len(images)} examples are too few to take test examples out of them. Give test=…")
        for_training = np.concatenate([places["train"], places["validation"]])
        train_images, train_labels = images[for_training], labels[for_training]
        test_images, test_labels = images[places["test"]], labels[places["test"]]
        num_validation = len(places["validation"])
    arrays = {
        "train_images": (f"the images of {names[0]}", train_images),
        "train_labels": (f"the labels of {names[0]}", train_labels),
        "test_images": (f"the images of {names[1]}", test_images),
        "test_labels": (f"the labels of {names[1]}", test_labels),
    }
    if class_names is not None:
        arrays[CLASS_NAMES] = ("class_names", np.array(class_names))
    if num_validation is not None:
        arrays[NUM_VALIDATION] = ("data", np.array(num_validation))
    return dataset_of_arrays(IN_MEMORY, "arrays in memory", arrays)


def _dataset_to_evaluate(data: Examples, trained: TrainedRun) -> Dataset:
    images, labels = _pair(data, "data")
    split = split_of_arrays(("the images of data", images), ("the labels of data", labels))
    dataset = build_dataset(IN_MEMORY, "arrays in memory", {SplitName.TEST: split}, trained.class_names)
    require_fitting_images(trained, dataset)
    return dataset


def _pair(examples: Examples, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    if not isinstance(examples, tuple | list) or len(examples) != 2:
        raise DataError(f"{name}: expected a pair of arrays, (images, labels).")
    # Not as a mapped file, of which a part would be taken for the whole.
    images, labels = (np.ascontiguousarray(array).view(np.ndarray) for array in examples)
    return images, labels


def _number_of_workers(workers: int) -> int:
    if isinstance(workers, bool) or not isinstance(workers, int) or not 0 <= workers <= 4096:
        raise ConfigError(f"workers: {workers!r} is not a whole number from 0 to 4096")
    return workers


def _choice(name: str, value: str, known: Sequence[str]) -> str:
    if value not in known:
        raise ConfigError(f"{name}: {value!r} is none of {', '.join(known)}")
    return value


def _report(figures: Mapping[str, Any]) -> Report:
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
