"""What a trained network says of single images: arrays in, arrays out, in this process.

Shapes: N images; C, H, W channels, rows, columns; E classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.analysis.evaluation import require_fitting_data
from partrain.analysis.trained_run import TrainedRun, load_trained_run
from partrain.data.image_files import invert_image, read_image
from partrain.data.loading import load_dataset
from partrain.data.split_name import SplitName
from partrain.errors import ConfigError
from partrain.kernels.compiler.loading import load
from partrain.network.execution_choice import execution_kernels, make_execution
from partrain.network.softmax import softmax
from partrain.system.messages import Messages
from partrain.system.terminal_text import printable

# How many classes after the most probable one are named.
NUM_NEXT = 2


class Classifier:
    """A trained network that classifies images.

    Parameters
    ----------
    trained : the network.
    announce, warn : told that kernels are compiled, which takes seconds; and what that ran into.
    """

    def __init__(self, trained: TrainedRun, announce: Callable[[str], None], warn: Callable[[str], None]) -> None:
        training = trained.config.training
        kernels = execution_kernels(training.kernels, trained.network.kinds)
        load(kernels, training.dtype, announce=announce, warn=warn)
        self._execution = make_execution(
            training.kernels, trained.network, trained.parameters, trained.normalisation, training.tile, training.dtype
        )
        self._num_outputs = trained.network.num_outputs

    def probabilities(self, images_NCHW: NDArray[Any]) -> NDArray[np.float64]:
        """Return the probability of each class, (N, E).

        Parameters
        ----------
        images_NCHW : uint8 or float32, in the units of the images that the network was trained on; read.
        """
        probabilities_NE = np.empty((len(images_NCHW), self._num_outputs))
        capacity = self._execution.capacity
        for first in range(0, len(images_NCHW), capacity):
            # A copy, since kernels take arrays of one kind: in C order, and writable.
            piece_NCHW = np.array(images_NCHW[first : first + capacity], order="C")
            logits_NE = self._execution.forward(piece_NCHW, np.arange(len(piece_NCHW)))
            probabilities_NE[first : first + capacity] = softmax(logits_NE)
        return probabilities_NE


def predict_files(
    path: Path, which: str, images: Sequence[Path], *, invert: bool, messages: Messages
) -> list[dict[str, Any]]:
    """Classify image files.

    Parameters
    ----------
    path, which : the run and its checkpoint, see `load_trained_run`.
    images : see `read_image`.
    invert : dark on light becomes light on dark.

    Returns
    -------
    For each image what goes into JSON: "image", and what `_outcome` says.

    Raises
    ------
    UserError
        The run or one of the images cannot be used; then nothing is computed.
    """
    trained = load_trained_run(path, which, messages.warn)
    shape, dtype = trained.network.input_shape, trained.image_dtype
    arrays = [read_image(image, shape, dtype, invert=invert) for image in images]
    classifier = Classifier(trained, messages.say, messages.warn)
    # One by one, as pictures and arrays differ in dtype.
    return [
        {"image": str(image)} | _outcome(classifier, trained, array)
        for image, array in zip(images, arrays, strict=True)
    ]


def predict_example(
    path: Path, which: str, split: SplitName, index: int, *, invert: bool, messages: Messages
) -> dict[str, Any]:
    """Classify an example of the data set.

    Returns
    -------
    What goes into JSON: "image", "split", "index", "label", "truth" (the label's name), and what `_outcome` says.

    Raises
    ------
    UserError
        The run or its data cannot be used, or there is no such example.
    """
    trained = load_trained_run(path, which, messages.warn)
    config = trained.config
    dataset = load_dataset(config.data, config.seed, say=messages.say, warn=messages.warn)
    require_fitting_data(trained, dataset, messages.warn)
    examples = dataset.splits[split]
    if index >= examples.size:
        there = f"0 to {examples.size - 1}" if examples.size else "none"
        raise ConfigError(f"--index {index}: the {split} examples are {there}")
    image, label = np.array(examples.images[index]), int(examples.labels[index])
    if invert:
        image = invert_image(image, trained.image_dtype, f"{split} example {index}")
    classifier = Classifier(trained, messages.say, messages.warn)
    return {
        "image": f"{split}[{index}]",
        "split": split,
        "index": index,
        "label": label,
        "truth": trained.class_names[label],
    } | _outcome(classifier, trained, image)


def describe(outcome: dict[str, Any]) -> str:
    """Return the line that says what came of an image."""
    following = ", ".join(_describe_class(entry) for entry in outcome["next"])
    truth = f"; truth: {printable(outcome['truth'])}" if "truth" in outcome else ""
    return (
        f"{printable(outcome['image'])}: {_describe_class(outcome)}"
        + (f", then {following}" if following else "")
        + truth
    )


def _describe_class(entry: dict[str, Any]) -> str:
    return f"{printable(entry['class'])} ({entry['probability']:.2%})"


def _outcome(classifier: Classifier, trained: TrainedRun, image_CHW: NDArray[Any]) -> dict[str, Any]:
    """Return "prediction" (a number), "class" (its name), "probability", "next" (as many again), "probabilities"."""
    probabilities_E = classifier.probabilities(image_CHW[np.newaxis])[0]
    first, *following = (
        {"prediction": k, "class": trained.class_names[k], "probability": float(probabilities_E[k])}
        for k in np.argsort(-probabilities_E, kind="stable")[: 1 + NUM_NEXT].tolist()
    )
    return first | {"next": following, "probabilities": probabilities_E.tolist()}
