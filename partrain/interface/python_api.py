"""The Python API: train on arrays, open runs, evaluate, predict.

    run = partrain.train("configs/mnist.yaml", workers=8, data=(images, labels))
    run.evaluate().accuracy
    run.predict(new_images)

Invalid arguments raise an exception of `partrain.errors` with the message that the command line would print. Worker
processes do not import the calling program, so a script needs no `if __name__ == "__main__"` guard for partrain.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from partrain.analysis.classification_report import classification_report
from partrain.analysis.evaluation import compute_evaluation, evaluate_run, require_fitting_images
from partrain.analysis.export.formats import choose_format, export_run
from partrain.analysis.prediction import Classifier
from partrain.analysis.trained_run import TrainedRun, Weights
from partrain.data.dataset import Dataset
from partrain.data.image_arrays import Layout
from partrain.data.split_name import SplitName
from partrain.errors import ConfigError
from partrain.interface.api_arguments import (
    api_session,
    callbacks_of,
    interruptible,
    override_texts,
    positive_integer,
    read_init_from,
    worker_count,
)
from partrain.interface.config_argument import ConfigArgument, read_training
from partrain.interface.images_to_classify import images_to_classify, layout_of
from partrain.interface.loaded_run import LoadedRun
from partrain.interface.memory_data import Examples, evaluation_data, training_data
from partrain.interface.report import Report, report_from
from partrain.interface.stored_run import StoredRun
from partrain.store.run_directory import RunDirectory
from partrain.store.run_location import RunLocation
from partrain.store.run_lookup import find_run, runs_directory
from partrain.system.messages import Messages
from partrain.training.callbacks import Callback
from partrain.training.resume import Horizon
from partrain.training.training_run import resume_run, train_new_run
from partrain.training.verification.verification import StepRange, Verification, verify_run

__all__ = ["Report", "Run", "open_run", "train"]


class Run(StoredRun):
    """A run: its configuration, its metrics, and the network that it trained.

    `train` and `open_run` return runs. The same directory may be opened several times, also during its training.

    Attributes
    ----------
    path : the run's directory.
    """

    def __init__(self, path: Path, dataset: Dataset | None = None, *, quiet: bool = False) -> None:
        super().__init__(path)
        self._dataset = dataset
        self._quiet = quiet
        self._loaded = LoadedRun(path)

    def __repr__(self) -> str:
        return f"partrain.open_run({str(self.path)!r})"

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, one per output of the network."""
        return self._load("last").class_names

    def evaluate(
        self,
        split: str | None = None,
        *,
        data: Examples | str | os.PathLike[str] | None = None,
        layout: Layout = None,
        checkpoint: str = "last",
        weights: Weights = "raw",
        workers: int | None = None,
    ) -> Report:
        """Evaluate the network on a split of the run's data, or on other examples.

        Parameters
        ----------
        split : "train", "validation" or "test" (default).
        data : evaluate these images and labels instead, as for `train`; or the path of the run's data, if it has moved.
        layout : the order of the axes of `data`, as for `train`; default: as in training.
        checkpoint : "last", "best" (by validation accuracy), or a checkpoint file.
        weights : "ema" for the averaged weights, if the run has them (`training.ema`).
        workers : number of worker processes; default: the number of usable processors. 0: compute in this process.

        Raises
        ------
        partrain.errors.PartrainError
            An argument is invalid, or the run cannot be used. A run that was trained on arrays in memory and opened
            again no longer has its data; pass `data`.
        KeyboardInterrupt
            The user pressed Ctrl-C.

        Side effects
        ------------
        Writes `evaluation-<split>.json` into the run, unless other examples are given.
        """
        messages = Messages(quiet=self._quiet)
        num_workers = worker_count(workers)
        is_path = isinstance(data, str | os.PathLike)
        if data is not None and not is_path and split is not None:
            raise ConfigError("evaluate: give split or data, not both")
        if split is not None and split not in tuple(SplitName):
            raise ConfigError(f"split: {split!r} is none of {', '.join(SplitName)}")
        with interruptible() as interruption:
            if data is None or isinstance(data, str | os.PathLike):
                evaluated = evaluate_run(
                    self.path,
                    SplitName(split or "test"),
                    checkpoint,
                    num_workers,
                    messages,
                    interruption,
                    self._dataset if data is None else None,
                    data_path=None if data is None else os.fspath(data),
                    weights=weights,
                )
                return report_from(evaluated.report)
            trained = self._load(checkpoint, weights)
            dataset = evaluation_data(data, trained.class_names, layout or layout_of(trained))
            require_fitting_images(trained, dataset)
            evaluation, _ = compute_evaluation(trained, dataset, SplitName.TEST, num_workers, messages, interruption)
        return report_from(classification_report(evaluation, trained.class_names))

    def predict(
        self,
        images: ArrayLike,
        *,
        layout: Layout = None,
        checkpoint: str = "last",
        weights: Weights = "raw",
        invert: bool = False,
        prepare: str | None = None,
    ) -> NDArray[np.int64]:
        """Return the index of the most probable class of each image, int64 (N,); see `class_names`.

        Parameters and exceptions are those of `predict_proba`.
        """
        probabilities = self.predict_proba(
            images, layout=layout, checkpoint=checkpoint, weights=weights, invert=invert, prepare=prepare
        )
        classes: NDArray[np.int64] = probabilities.argmax(axis=1)
        return classes

    def predict_proba(
        self,
        images: ArrayLike,
        *,
        layout: Layout = None,
        checkpoint: str = "last",
        weights: Weights = "raw",
        invert: bool = False,
        prepare: str | None = None,
    ) -> NDArray[np.float64]:
        """Return the probability of each class for each image, float64 (N,E). Computes in this process.

        A warning says so if brightness or contrast of images is far from that of the training images.

        Parameters
        ----------
        images : (N,C,H,W), or (N,H,W) with one channel; with the same range of values as the training images. Or the
            path of an image file, or a list of paths: they are converted and resized like the command `predict` does.
        layout : the order of the axes of an array; "channels_last" for (N,H,W,C). Default: as in training.
        checkpoint, weights : as in `evaluate`.
        invert : swap dark and light: 255 - x.
        prepare : "mnist" to cut out, scale and centre a digit in each image, as in MNIST's images. Then the images may
            also be a list of pictures of any size, (H,W), (3,H,W) or (H,W,3), with values from 0 to 255.

        Raises
        ------
        partrain.errors.PartrainError
            An argument is invalid, the images do not fit the network, or the run cannot be used.
        """
        trained = self._load(checkpoint, weights)
        messages = Messages(quiet=self._quiet)
        array = images_to_classify(images, trained, layout, messages.warn, invert=invert, prepare=prepare)
        return Classifier(trained, messages.say, messages.warn).probabilities(array)

    def export(
        self,
        to: str | os.PathLike[str],
        *,
        format: str | None = None,
        checkpoint: str = "last",
        weights: Weights = "raw",
    ) -> Path:
        """Write parameters or metrics in another format, like the command `partrain export`; return the file's path.

        Parameters
        ----------
        to : the file, replaced if it exists; for "tensorboard" a directory.
        format : "safetensors", "npz", "onnx" or "py" (a PyTorch module, with its parameters in a .safetensors file
            beside it), or "csv" or "tensorboard" for metrics; default: the suffix of `to`.
        checkpoint, weights : as in `evaluate`; for parameters only.

        Raises
        ------
        partrain.errors.PartrainError
            The run has nothing to export, a package is missing, or the file cannot be written.
        """
        messages = Messages(quiet=self._quiet)
        name = choose_format(os.fspath(to), format)
        return export_run(self.path, Path(to), name, checkpoint, weights, say=messages.say, warn=messages.warn)

    def resume(
        self,
        *,
        epochs: int | None = None,
        max_steps: int | None = None,
        changes: Mapping[str, Any] | None = None,
        data: Examples | None = None,
        test: Examples | None = None,
        class_names: Sequence[str] | None = None,
        workers: int | None = None,
        on_step: Callback | None = None,
        on_evaluation: Callback | None = None,
    ) -> Run:
        """Continue the training in the same directory, like the command `partrain resume`; return the run.

        Parameters
        ----------
        epochs, max_steps : how far to train in all; default: as far as before.
        changes : values by dotted key, e.g. `{"logging.every_steps": 1}`; runtime keys, and
            `data.path` if the data has moved.
        data, test, class_names : as for `train`, for a run on arrays in memory that was opened again; the digest tells
            whether they are the same.
        workers, on_step, on_evaluation : as for `train`.

        Raises, Side effects: as for `train`.
        """
        dataset = self._dataset
        if data is not None:
            dataset = training_data(data, test, class_names, self.config.data.layout)
        horizon = Horizon(positive_integer("epochs", epochs), positive_integer("max_steps", max_steps))
        messages, callbacks = Messages(quiet=self._quiet), callbacks_of(on_step, on_evaluation)
        with api_session("Run.resume", workers, messages, callbacks) as session:
            resume_run(self.path, override_texts(changes), horizon, session, dataset)
        return Run(self.path, dataset, quiet=self._quiet)

    def verify(self, *, first: int | None = None, last: int | None = None, workers: int | None = None) -> Verification:
        """Compute steps of the run again, and compare its files with them, like the command `partrain verify`.

        Parameters
        ----------
        first : start from the newest checkpoint that is not after this step; None: the last checkpoint but one.
        last : the last step; None: that of the newest checkpoint.
        workers : as for `train`.

        Returns
        -------
        What was compared: `first_step`, `last_step`, `num_checkpoints`, `num_rows` (lines of metrics), `with_test`.

        Raises
        ------
        VerificationFailed
            A stored value differs from the recomputed one; the message names the first.
        UserError
            The run cannot be computed again: it has another version of the bits, drew secret noise, was imported, or
            its data is missing.
        """
        with api_session("Run.verify", workers, Messages(quiet=self._quiet)) as session:
            return verify_run(self.path, StepRange(first, last), session, dataset=self._dataset)

    def _load(self, checkpoint: str, weights: Weights = "raw") -> TrainedRun:
        return self._loaded.read(checkpoint, Messages(quiet=self._quiet).warn, weights)


def train(
    config: ConfigArgument,
    *,
    data: Examples | None = None,
    test: Examples | None = None,
    class_names: Sequence[str] | None = None,
    layout: Layout = None,
    workers: int | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    runs_dir: str | os.PathLike[str] | None = None,
    init_from: str | os.PathLike[str] | Run | None = None,
    strict: bool = False,
    on_step: Callback | None = None,
    on_evaluation: Callback | None = None,
    quiet: bool = False,
) -> Run:
    """Train into a new run directory, like the command `partrain train`.

    Parameters
    ----------
    config : a YAML file's path, the name of an example (mnist.yaml), a mapping with the same content, or a `Config`.
    data : images and labels to train on, instead of the configuration's `data`. Images are uint8 or float32, (N,H,W) or
        (N,C,H,W); labels are integers from 0, (N,).
    test : images and labels to test on. Without it, about a tenth of `data` is held out for testing and another tenth
        for validation, chosen by a hash of an example's index. With it, the last sixth of `data` is for validation,
        unless the configuration's `data: {name: memory, train_examples: …, validation_examples: …}` says otherwise.
    class_names : the name of each class; default: "0", "1" …
    layout : "channels_first" (N,C,H,W) or "channels_last" (N,H,W,C); default: `data.layout`, or (N,C,H,W).
    workers : number of worker processes; default: that of usable processors. 0: compute here. Any gives the same bits.
    run_dir : the run's directory, which must not exist.
    runs_dir : without `run_dir`, the directory in which the run's directory is created; default: as for `open_run`.
    init_from : a run, or a safetensors file (also PyTorch's): start from its parameters that fit by name and shape.
    strict : refuse parameters of `init_from` that do not fit completely.
    on_step, on_evaluation : called after a step with its logged metrics, or with those of an evaluation: a dictionary
        like the line in metrics.jsonl. If one returns True or raises, training ends and the run is saved.
    quiet : print only warnings and errors.

    Returns
    -------
    The run: completed, or "interrupted" if a callback stopped it. It keeps a reference to `data`.

    Raises
    ------
    partrain.errors.UserError
        An argument is invalid. No run was created.
    partrain.errors.FailedRun
        The training failed.
    KeyboardInterrupt, SystemExit
        Ctrl-C (SIGINT), or SIGTERM or SIGHUP: the run is saved, and can be resumed. Only the main thread notices them.

    Side effects: creates the run's directory; while it trains, processes and shared memory. Messages go to stderr.
    """
    messages = Messages(quiet=quiet)
    resolved, dataset = read_training(config, data, test, class_names, layout, messages.say)
    location = RunLocation(runs_directory(runs_dir), None if run_dir is None else Path(run_dir))
    location.require_creatable()
    initial = read_init_from(init_from, location.runs_dir, messages.warn, strict=strict)
    with api_session("train", workers, messages, callbacks_of(on_step, on_evaluation)) as session:
        path = train_new_run(resolved, location, session, initial, dataset).path
    return Run(path, dataset, quiet=quiet)


def open_run(
    path: str | os.PathLike[str], *, runs_dir: str | os.PathLike[str] | None = None, quiet: bool = False
) -> Run:
    """Open an existing run.

    Parameters
    ----------
    path : the run's directory, its name in `runs_dir` or the beginning of it, "last" (the newest run) or "last~1" (the
        one before it).
    runs_dir : the directory of runs; default: the environment variable PARTRAIN_RUNS_DIR, or else "runs".
    quiet : print only warnings and errors.

    Raises
    ------
    partrain.errors.RunError
        There is no such run.
    """
    run = RunDirectory.open(find_run(os.fspath(path), runs_directory(runs_dir)))
    return Run(run.path, quiet=quiet)
