"""Classifies images with a trained network, in this process.

Shapes: N images; C, H, W channels, rows, columns; E classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from partrain.analysis.evaluation import load_run_data, require_fitting_data
from partrain.analysis.prediction_input import image_paths, read_images, warn_if_unlike_training
from partrain.analysis.trained_run import TrainedRun, Weights, load_trained_run
from partrain.config.schema.config import Config
from partrain.data.image_files import invert_image
from partrain.data.split_name import SplitName
from partrain.errors import ConfigError, UserError
from partrain.kernels.compiler.loading import load
from partrain.network.execution_choice import execution_kernels, make_execution
from partrain.network.network import Network
from partrain.network.normalisation import Normalisation
from partrain.network.softmax import softmax
from partrain.system.messages import Messages
from partrain.system.terminal_text import printable

# The number of classes that are named after the most probable one.
NUM_NEXT = 2


class ReadyNetwork(Protocol):
    """A network with parameters: what a classifier needs of a trained run; see `TrainedRun`."""

    @property
    def config(self) -> Config:
        """The configuration that it was trained with."""

    @property
    def network(self) -> Network:
        """The network."""

    @property
    def parameters(self) -> NDArray[Any]:
        """Its vector of parameters."""

    @property
    def normalisation(self) -> Normalisation:
        """The normalisation of the images."""


class Classifier:
    """A trained network that classifies images.

    Parameters
    ----------
    trained : the network.
    announce, warn : receive the messages and warnings of compiling the kernels, which can take seconds.
    """

    def __init__(self, trained: ReadyNetwork, announce: Callable[[str], None], warn: Callable[[str], None]) -> None:
        training = trained.config.training
        kernels = execution_kernels(training.kernels, trained.network.layers)
        load(kernels, training.dtype, announce=announce, warn=warn)
        self._execution = make_execution(
            training.kernels,
            trained.network,
            trained.parameters,
            trained.normalisation,
            training.tile,
            training.dtype,
            keeps_gradients=False,
        )
        self._num_outputs = trained.network.num_outputs

    def probabilities(self, images_NCHW: NDArray[Any]) -> NDArray[np.float64]:
        """Return the probability of each class, float64 (N,E).

        Parameters
        ----------
        images_NCHW : uint8 or float32, in the units of the images that the network was trained on; read.
        """
        probabilities_NE = np.empty((len(images_NCHW), self._num_outputs))
        capacity = self._execution.capacity
        for first in range(0, len(images_NCHW), capacity):
            # A copy, because kernels only take writable arrays in C order.
            piece_NCHW = np.array(images_NCHW[first : first + capacity], order="C")
            logits_NE = self._execution.forward(piece_NCHW, np.arange(len(piece_NCHW)))
            probabilities_NE[first : first + capacity] = softmax(logits_NE)
        return probabilities_NE


def predict_files(
    path: Path,
    checkpoint: str,
    images: Sequence[Path],
    *,
    invert: bool,
    prepare: str | None,
    messages: Messages,
    weights: Weights = "raw",
) -> tuple[list[dict[str, Any]], list[UserError]]:
    """Classify image files.

    Parameters
    ----------
    path, checkpoint : the run and the checkpoint, see `load_trained_run`.
    images : image files, see `read_image`, and directories of them.
    invert : invert the images, e.g. dark on light to light on dark.
    prepare : "mnist" to prepare pictures of digits, see `prepare_digit`; None to use them as they are.
    messages : messages to the user. A warning names images that are unlike the training images.
    weights : "ema": the averaged weights.

    Returns
    -------
    For each image that can be used a dictionary, ready for JSON: `image` (the path), `prediction` (class index),
    `class` (its name), `probability`, `next` (the same of the next classes), and `probabilities` of all classes; and
    an error for each of the other images.

    Raises
    ------
    UserError
        The run cannot be used, or a package is missing.
    """
    trained = load_trained_run(path, checkpoint, messages.warn, weights)
    paths, errors = image_paths(images, messages.say)
    arrays, broken = read_images(paths, trained, invert=invert, prepare=prepare)
    if prepare is None:
        warn_if_unlike_training(arrays, trained, messages.warn, invert=invert)
    if not arrays:
        return [], [*errors, *broken]
    classifier = Classifier(trained, messages.say, messages.warn)
    # One by one, because images and arrays can differ in dtype.
    predictions = [{"image": name} | _predict(classifier, trained, array) for name, array in arrays]
    return predictions, [*errors, *broken]


def predict_example(
    path: Path,
    checkpoint: str,
    split: SplitName,
    index: int,
    *,
    invert: bool,
    messages: Messages,
    data_path: str | None = None,
    weights: Weights = "raw",
) -> dict[str, Any]:
    """Classify an example of the run's data set.

    Parameters
    ----------
    split, index : the split, and the index of the example in it.
    path, checkpoint, invert, messages, weights : as for `predict_files`; nothing warns about the example.
    data_path : where the run's data is; None: where it was in training.

    Returns
    -------
    As an entry of `predict_files`, and `split`, `index`, `file` (if the example is a file), `label` and `truth` (the
    name of the label).

    Raises
    ------
    UserError
        The run or its data cannot be used, or the example does not exist.
    """
    trained = load_trained_run(path, checkpoint, messages.warn, weights)
    dataset = load_run_data(trained, messages, data_path)
    require_fitting_data(trained, dataset, messages.warn)
    examples = dataset.splits[split]
    if index >= examples.size:
        available = f"has the examples 0 to {examples.size - 1}" if examples.size else "is empty"
        raise ConfigError(f"--index {index}: the {split} split {available}")
    image, label = np.array(examples.images[index]), int(examples.labels[index])
    if invert:
        image = invert_image(image, trained.image_dtype, f"{split} example {index}")
    classifier = Classifier(trained, messages.say, messages.warn)
    return {
        "image": f"{split}[{index}]",
        "split": split,
        "index": index,
        **examples.file_entry(index),
        "label": label,
        "truth": trained.class_names[label],
    } | _predict(classifier, trained, image)


def describe(prediction: dict[str, Any]) -> str:
    """Return a prediction as one line of text."""
    following = ", ".join(_describe_class(entry) for entry in prediction["next"])
    file = f" ({printable(prediction['file'])})" if "file" in prediction else ""
    truth = f"; true class: {printable(prediction['truth'])}" if "truth" in prediction else ""
    return (
        f"{printable(prediction['image'])}{file}: {_describe_class(prediction)}"
        + (f", then {following}" if following else "")
        + truth
    )


def _describe_class(entry: dict[str, Any]) -> str:
    return f"{printable(entry['class'])} ({entry['probability']:.2%})"


def _predict(classifier: Classifier, trained: TrainedRun, image_CHW: NDArray[Any]) -> dict[str, Any]:
    """Return the part of an entry of `predict_files` that does not depend on where the image is from."""
    probabilities_E = classifier.probabilities(image_CHW[np.newaxis])[0]
    first, *following = (
        {"prediction": k, "class": trained.class_names[k], "probability": float(probabilities_E[k])}
        for k in np.argsort(-probabilities_E, kind="stable")[: 1 + NUM_NEXT].tolist()
    )
    return first | {"next": following, "probabilities": probabilities_E.tolist()}
