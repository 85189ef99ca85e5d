"""Imports the file that the article's code saves after training: a pickle of `[params, cost]`.

`params` is `[f1, f2, w3, w4, b1, b2, b3, b4]`: the filters of two convolutions, the weights of two dense layers, and
their biases as columns. `cost` is the mean loss of each batch. The names below are the article's.

Source: A. Escontrela, "Convolutional Neural Networks from the Ground Up" (2018), and its code.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.config.reader import parse_config
from partrain.config.schema.config import Config
from partrain.data.batches import steps_per_epoch
from partrain.data.file_access import require_file, unreadable
from partrain.errors import ConfigError, RunError
from partrain.network.network import Network
from partrain.network.normalisation import Normalisation
from partrain.network.parameters import digest
from partrain.store.checkpoint import Checkpoint
from partrain.store.metrics_log import MetricsLog
from partrain.store.plain_pickle import MAX_BYTES, load_plain_pickle
from partrain.store.run_directory import RunDirectory
from partrain.store.run_location import RunLocation
from partrain.system.durable_files import write_durably
from partrain.system.memory_limits import require_memory
from partrain.system.terminal_text import loss_text
from partrain.training.run_record import imported_record

# The article's data and batch size; its file does not contain them.
_TRAIN_EXAMPLES, _VALIDATION_EXAMPLES, _BATCH_SIZE = 50_000, 10_000, 32
_IMAGE_SHAPE = (1, 28, 28)
_CLASS_NAMES = tuple("0123456789")

_WEIGHTS = ("f1", "f2", "w3", "w4")
_BIASES = ("b1", "b2", "b3", "b4")
_LAYERS = ("conv1", "conv2", "dense1", "dense2")
_MANY_AXES = {"f1": 4, "f2": 4, "w3": 2, "w4": 2}


@dataclass(frozen=True, eq=False)
class ArticleFile:
    """The content of the article's file.

    Attributes
    ----------
    arrays : float64, by the article's names; biases as (F,) or (E,).
    cost : the mean loss of each batch.
    """

    arrays: dict[str, NDArray[np.float64]]
    cost: list[float]


def import_article(
    file: Path,
    location: RunLocation,
    normalisation: Normalisation,
    command_line: Sequence[str],
    say: Callable[[str], None],
) -> RunDirectory:
    """Create a run from the article's saved file.

    The run computes in float64 with the readable loops, as the article's code does.

    Parameters
    ----------
    file : the pickle.
    location : where to create the run.
    normalisation : how the article's code turned pixels into inputs; recorded in the run.
    command_line : recorded in the run.
    say : receives a line about the imported parameters.

    Returns
    -------
    The directory of the run, which is complete.

    Raises
    ------
    RunError
        The file is not such a pickle, or the run's directory exists.
    DataError
        The file cannot be read.
    ResourceError
        The run cannot be written.

    Side effects
    ------------
    Creates the run's directory, which appears when all its files are written.
    """
    data = _read(file)
    article = _checked(load_plain_pickle(data, str(file)), str(file))
    config = _config_of(article)
    network = _network_of(config, article, str(file))
    origin = {"file": str(file.absolute()), "sha256": hashlib.sha256(data).hexdigest()}

    def fill(run: RunDirectory) -> None:
        _write(run, config, network, article, normalisation)
        run.write_run_json(imported_record(config, _data_record(normalisation), origin, command_line))

    run = location.create(config.name, fill)
    last = f"; the last cost is {loss_text(article.cost[-1])}" if article.cost else ""
    say(f"{run.path}: {network.parameters.size:,} parameters after {len(article.cost):,} steps{last}")
    return run


def _read(file: Path) -> bytes:
    require_file(file)
    try:
        with open(file, "rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise unreadable(file, error) from None


def _checked(content: Any, name: str) -> ArticleFile:
    """Check the content of the pickle: a list of eight arrays, and a list of numbers."""
    if not _is_list(content, 2) or not _is_list(content[0], 8) or not isinstance(content[1], list | tuple | np.ndarray):
        raise RunError(
            f"{name}: is not the article's file: it contains {_described(content)}, "
            f"not [params, cost] with params = [{', '.join((*_WEIGHTS, *_BIASES))}]."
        )
    arrays: dict[str, NDArray[np.float64]] = {}
    for place, (key, value) in enumerate(zip((*_WEIGHTS, *_BIASES), content[0], strict=True)):
        if not isinstance(value, np.ndarray):
            raise RunError(f"{name}: params[{place}] ({key}) is {_described(value)}, not an array.")
        require_memory(8 * value.size, f"{name}: params[{place}]", "Check that it is the article's file.")
        array = np.array(value, np.float64)
        if not np.isfinite(array).all():
            raise RunError(f"{name}: params[{place}] ({key}) contains numbers that are not finite.")
        if key in _MANY_AXES and (array.ndim != _MANY_AXES[key] or 0 in array.shape):
            raise RunError(f"{name}: params[{place}] ({key}) has shape {array.shape}, not {_MANY_AXES[key]} axes.")
        arrays[key] = array
    for place, (weight, bias) in enumerate(zip(_WEIGHTS, _BIASES, strict=True), start=4):
        size = len(arrays[weight])
        if arrays[bias].shape not in ((size, 1), (size,)):
            raise RunError(
                f"{name}: params[{place}] ({bias}) has shape {arrays[bias].shape}, not ({size}, 1); "
                f"{weight} has shape {arrays[weight].shape}."
            )
        arrays[bias] = arrays[bias].reshape(size)
    return ArticleFile(arrays, [_cost(value, place, name) for place, value in enumerate(content[1])])


def _is_list(value: Any, length: int) -> bool:
    return isinstance(value, list | tuple) and len(value) == length


def _cost(value: Any, place: int, name: str) -> float:
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if is_number or (isinstance(value, np.ndarray) and value.size == 1):
        try:
            return float(np.asarray(value, np.float64).item())
        except OverflowError:
            return math.inf
    raise RunError(f"{name}: cost[{place}] is {_described(value)}, not a number.")


def _described(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value):,}"
    return f"a {type(value).__name__}"


def _config_of(article: ArticleFile) -> Config:
    """Return the configuration that trains this network as the article does."""
    f1, f2, w3, w4 = (article.arrays[name] for name in _WEIGHTS)
    steps = steps_per_epoch(_TRAIN_EXAMPLES, _BATCH_SIZE)
    epochs = max(1, math.ceil(len(article.cost) / steps))
    mapping = {
        "name": "article",
        "data": {
            "name": "mnist",
            "train_examples": _TRAIN_EXAMPLES,
            "validation_examples": _VALIDATION_EXAMPLES,
            "when_unavailable": "error",
        },
        "network": [
            {"conv": {"filters": len(f1), "kernel": list(f1.shape[2:])}},
            "relu",
            {"conv": {"filters": len(f2), "kernel": list(f2.shape[2:])}},
            "relu",
            {"max_pool": {"window": 2}},
            "flatten",
            {"dense": {"units": len(w3)}},
            "relu",
            {"dense": {"units": len(w4)}},
        ],
        "training": {
            "epochs": epochs,
            "batch_size": _BATCH_SIZE,
            "optimizer": {"name": "adam", "lr": 0.01, "beta1": 0.95, "beta2": 0.99},
            "schedule": {"decay_steps": epochs * steps},
            "kernels": "loops",
            "dtype": "float64",
        },
    }
    return parse_config(mapping, source="the article's network")


def _network_of(config: Config, article: ArticleFile, name: str) -> Network:
    """Return the network of the configuration; check that its weights have the shapes of the file's."""
    try:
        network = Network(config.network, _IMAGE_SHAPE, len(_CLASS_NAMES))
    except ConfigError as error:
        raise RunError(f"{name}: does not fit images of 28 x 28 in ten classes: {error}") from error
    shapes = {parameter.name: parameter.shape for parameter in network.parameters}
    for place, (key, layer) in enumerate(zip(_WEIGHTS, _LAYERS, strict=True)):
        shape, needed = article.arrays[key].shape, shapes[f"{layer}.weight"]
        if shape != needed:
            raise RunError(f"{name}: params[{place}] ({key}) has shape {shape}; the layers before it require {needed}.")
    return network


def _write(
    run: RunDirectory, config: Config, network: Network, article: ArticleFile, normalisation: Normalisation
) -> None:
    """Write configuration, metrics, checkpoint and summary."""
    write_durably(run.config_path, config.to_yaml().encode())
    num_steps, per_epoch = len(article.cost), steps_per_epoch(_TRAIN_EXAMPLES, _BATCH_SIZE)
    log = MetricsLog(run.metrics_path)
    try:
        for step, cost in enumerate(article.cost, start=1):
            epoch, examples = round(step / per_epoch, 6), _num_examples(step, per_epoch)
            log.append({"step": step, "epoch": epoch, "examples": examples, "train/loss": cost})
        log.flush_durably()
    finally:
        log.close()
    tensors: dict[str, NDArray[Any]] = {}
    for weight, bias, layer in zip(_WEIGHTS, _BIASES, _LAYERS, strict=True):
        tensors |= {f"{layer}.weight": article.arrays[weight], f"{layer}.bias": article.arrays[bias]}
    metadata = {
        "step": num_steps,
        "epoch": num_steps / per_epoch,
        "seed": config.seed,
        "best": None,
        "normalisation": {"mean": normalisation.mean, "std": normalisation.std},
        "class_names": _CLASS_NAMES,
        "image_shape": _IMAGE_SHAPE,
        "image_dtype": "uint8",
        "data_digest": None,
        "config_digest": config.identity_digest(),
    }
    run.checkpoints.save(Checkpoint(tensors, metadata))
    not_known = ("train_seconds", "startup_seconds", "evaluation_seconds", "checkpoint_seconds", "total_seconds")
    run.write_summary(
        {
            "steps": num_steps,
            "epochs": num_steps / per_epoch,
            "examples": _num_examples(num_steps, per_epoch),
            **dict.fromkeys(not_known),
            "examples_per_second": None,
            "workers": None,
            "peak_memory_bytes": None,
            "final": {"train/loss": article.cost[-1]} if article.cost else {},
            "best": None,
            "test": None,
            "stopped_early": None,
            "parameters_sha256": digest(network.parameters.join(tensors)),
        }
    )


def _num_examples(step: int, per_epoch: int) -> int:
    epochs, steps = divmod(step, per_epoch)
    return epochs * _TRAIN_EXAMPLES + steps * _BATCH_SIZE


def _data_record(normalisation: Normalisation) -> dict[str, Any]:
    return {
        "name": "mnist",
        "source": "not known: an import",
        "digest": None,
        "class_names": list(_CLASS_NAMES),
        "normalisation": {"mean": list(normalisation.mean), "std": list(normalisation.std)},
    }
