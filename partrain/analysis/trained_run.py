"""A trained run, ready to compute with: the network of its configuration with the parameters of a checkpoint.

This module computes nothing and loads no kernels. Files may have been edited by hand or written by another program, so
configuration and checkpoint are checked against each other; if they do not fit, the user gets a message.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
import pydantic
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from partrain.analysis.privacy_record import usable_privacy
from partrain.config.reader import parse_config, read_run_config
from partrain.config.schema.config import Config
from partrain.config.schema.values import PositiveInt
from partrain.errors import ConfigError, RunError
from partrain.network.network import Network
from partrain.network.normalisation import Normalisation
from partrain.store import checkpoint
from partrain.store.checkpoint import AVERAGE_PREFIX, Checkpoint, is_parameter
from partrain.store.run_directory import RunDirectory

# Attempts to open the best checkpoint: training in progress may replace it at any moment.
MAX_ATTEMPTS = 3
# The maximum number of items that a message lists.
MAX_LISTED = 3

# Old checkpoints do not describe their images, but those of the built-in data sets all have the same form.
_NAMED_DATA = ("mnist", "fashion-mnist", "synthetic-digits")
_NAMED_IMAGES = {"image_shape": [1, 28, 28], "image_dtype": "uint8"}

_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Normalisation(BaseModel):
    model_config = ConfigDict(strict=True)
    mean: list[_Finite]
    std: list[_Positive]


class _Metadata(BaseModel):
    """The part of a checkpoint's metadata that is used here."""

    model_config = ConfigDict(strict=True)
    normalisation: _Normalisation
    class_names: Annotated[list[str], Field(min_length=1)]
    image_shape: Annotated[list[PositiveInt], Field(min_length=3, max_length=3)]
    image_dtype: Literal["uint8", "float32"]
    data_digest: str | None = None
    privacy: Any = None


# The parameters of the last step, or their average.
Weights = Literal["raw", "ema"]


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """A network with the parameters of a checkpoint, and a description of its images and classes.

    Attributes
    ----------
    run, config : the run's directory and its configuration.
    network, parameters : the network, and its vector of parameters in the configuration's dtype.
    normalisation : the normalisation of the images.
    class_names : the class names of all outputs; an output without a class in the data is named by its number.
    image_dtype : the dtype of the images: "uint8" (0 to 255), or "float32" in the data set's own units.
    data_digest : the digest of the data set that the run was trained on; None if unknown.
    checkpoint : the checkpoint file.
    step : the number of training steps at the checkpoint.
    privacy : the privacy spent up to the checkpoint; None unless the training was private.
    weights : which weights `parameters` are.
    """

    run: RunDirectory
    config: Config
    network: Network
    parameters: NDArray[Any]
    normalisation: Normalisation
    class_names: tuple[str, ...]
    image_dtype: str
    data_digest: str | None
    checkpoint: Path
    step: int
    privacy: dict[str, Any] | None = None
    weights: Weights = "raw"


def load_trained_run(
    path: Path, checkpoint_name: str, warn: Callable[[str], None], weights: Weights = "raw"
) -> TrainedRun:
    """Load a run. A training run that is writing into it is not disturbed.

    Parameters
    ----------
    path : the run's directory.
    checkpoint_name : "last" (the newest good checkpoint), "best" (by validation accuracy), the path of a file, or the
        name of a file among the run's checkpoints.
    warn : receives warnings about damaged checkpoints, which are skipped.
    weights : "ema": the averaged weights (`training.ema`).

    Raises
    ------
    UserError
        There is no such run or checkpoint, it has no averaged weights, or its files do not fit together.
    """
    if weights not in get_args(Weights):
        raise ConfigError(f"weights: {weights!r} is none of {', '.join(get_args(Weights))}")
    run = RunDirectory.open(path)
    config = read_run_config(run.config_path)
    _require_unchanged_network(run, config)
    state, file = _find_checkpoint(run, checkpoint_name, warn)
    known = _NAMED_IMAGES if config.data.name in _NAMED_DATA else {}
    try:
        metadata = _Metadata.model_validate(known | state.metadata)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RunError(f"{file}: its metadata is invalid: {where}: {first['msg']}.") from error
    tensors = parameters_in(state.tensors)
    if weights == "ema":
        tensors = _averages_in(state.tensors)
        if not tensors:
            raise RunError(f"{file}: has no averaged weights, because the run was trained without training.ema.")
    channels, rows, columns = metadata.image_shape
    normalisation = Normalisation(tuple(metadata.normalisation.mean), tuple(metadata.normalisation.std))
    if not len(normalisation.mean) == len(normalisation.std) == channels:
        raise RunError(f"{file}: its normalisation is not for images with {channels} channels.")
    try:
        network = Network(config.network, (channels, rows, columns), len(metadata.class_names))
    except ConfigError as error:
        raise RunError(f"{file}: does not fit the configuration {run.config_path}: {error}") from error
    return TrainedRun(
        run=run,
        config=config,
        network=network,
        parameters=_fill(network, tensors, config.training.dtype, file, run),
        normalisation=normalisation,
        class_names=padded_names(metadata.class_names, network.num_outputs),
        image_dtype=metadata.image_dtype,
        data_digest=metadata.data_digest,
        privacy=usable_privacy(metadata.privacy),
        checkpoint=file,
        step=state.step,
        weights=weights,
    )


def padded_names(class_names: Sequence[str], num_outputs: int) -> tuple[str, ...]:
    """Return a name for each output; outputs without a class are named by their number."""
    return (*class_names, *map(str, range(len(class_names), num_outputs)))


def _require_unchanged_network(run: RunDirectory, config: Config) -> None:
    """Check that the configuration's network is the one that the run was started with.

    A changed stride, for example, fits the parameters but gives a different network. Both are parsed with the current
    schema, so that keys added since then make no difference.
    """
    identity = run.read_run_json().get("identity")
    with contextlib.suppress(ConfigError):
        if isinstance(identity, dict) and parse_config(identity, source="run.json").network != config.network:
            raise RunError(
                f"{run.config_path}: its network was changed after the start of the run (compare {run.run_json_path}). "
                "Undo the change."
            )


def _find_checkpoint(run: RunDirectory, checkpoint_name: str, warn: Callable[[str], None]) -> tuple[Checkpoint, Path]:
    if checkpoint_name == "last":
        return newest_checkpoint(run, warn)
    if checkpoint_name == "best":
        return _best(run, warn)
    for path in (Path(checkpoint_name), run.checkpoints_path / checkpoint_name):
        if path.is_file():
            return _load(path), path
    names = [path.name for path in run.checkpoints.files()]
    available = f"{run.path} has {', '.join(names[-MAX_LISTED:])}" if names else f"{run.path} has no checkpoint"
    raise RunError(f"--checkpoint {checkpoint_name}: there is no such file; {available}. Give last, best, or a file.")


def newest_checkpoint(run: RunDirectory, warn: Callable[[str], None]) -> tuple[Checkpoint, Path]:
    """Return the newest good checkpoint of a run, and its file.

    Raises
    ------
    RunError
        There is none.
    """
    found = run.checkpoints.newest_good(warn)
    if found is None and run.checkpoints.files():
        raise RunError(f"{run.path}: all of its checkpoints are damaged. Train it again.")
    if found is None:
        raise RunError(f"{run.path}: has no checkpoint yet. One is saved at the end of each epoch.")
    return found


def _best(run: RunDirectory, warn: Callable[[str], None]) -> tuple[Checkpoint, Path]:
    for _ in range(MAX_ATTEMPTS):
        state, file = newest_checkpoint(run, warn)
        best = state.metadata.get("best")
        step = best.get("step") if isinstance(best, dict) else None
        if not isinstance(step, int):
            raise RunError(
                f"{run.path}: has no best checkpoint, because it was never validated. Use --checkpoint last."
            )
        path = run.checkpoints.path_of(step)
        if path == file:
            return state, file
        if path.is_file():
            return _load(path), path
    raise RunError(
        f"{path}: the best checkpoint, of step {step}, was not kept (see checkpoints.keep_best). Use --checkpoint last."
    )


def _load(path: Path) -> Checkpoint:
    try:
        return checkpoint.load(path)
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}.") from error


def parameters_in(tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the parameters among a checkpoint's tensors, without the moments of the optimizer."""
    return {name: tensor for name, tensor in tensors.items() if is_parameter(name)}


def _averages_in(tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the averaged weights among a checkpoint's tensors, under the names of the parameters."""
    prefix = AVERAGE_PREFIX
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _fill(
    network: Network, tensors: Mapping[str, NDArray[Any]], dtype: str, file: Path, run: RunDirectory
) -> NDArray[Any]:
    """Return the network's vector of parameters, filled from a checkpoint's tensors of these names."""
    vector = np.empty(network.parameters.size, dtype)
    views = network.parameters.views(vector)
    problems = [f"{name} is not a parameter of the network" for name in tensors if name not in views]
    for name, view in views.items():
        if name not in tensors:
            problems.append(f"{name} is missing")
        elif tensors[name].shape != view.shape or tensors[name].dtype.kind != "f":
            found = tensors[name]
            problems.append(f"{name} is {found.dtype}{list(found.shape)}, not {dtype}{list(view.shape)}")
        else:
            view[:] = tensors[name]
    if problems:
        more = f", and {len(problems) - MAX_LISTED} more" if len(problems) > MAX_LISTED else ""
        raise RunError(
            f"{file}: does not fit the configuration {run.config_path}: {'; '.join(problems[:MAX_LISTED])}{more}. "
            "Use a checkpoint of this run."
        )
    return vector
