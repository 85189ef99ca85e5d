"""A trained run as something to compute with: a checkpoint's parameters in the configuration's network.

Nothing is computed here, and no kernel is loaded. All that is read may have been changed by hand, or come from
another program: it is checked against each other, and what does not fit is a message.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pydantic
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from partrain.analysis.privacy_record import usable_privacy
from partrain.config.reader import parse_config, read_config
from partrain.config.schema.config import Config
from partrain.config.schema.values import PositiveInt
from partrain.errors import ConfigError, RunError
from partrain.network.network import Network
from partrain.network.normalisation import Normalisation
from partrain.store import checkpoint
from partrain.store.checkpoint import Checkpoint, is_parameter
from partrain.store.run_directory import RunDirectory

# How often the best checkpoint is looked for, where a training that goes on may just have replaced it.
MAX_ATTEMPTS = 3
# What a message lists of a longer list.
LISTED = 3

# Earlier checkpoints do not describe the images; those of the data sets with a name are all alike.
_NAMED_DATA = ("mnist", "fashion-mnist", "synthetic-digits")
_NAMED_IMAGES = {"image_shape": [1, 28, 28], "image_dtype": "uint8"}

_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Normalisation(BaseModel):
    model_config = ConfigDict(strict=True)
    mean: list[_Finite]
    std: list[_Positive]


class _Metadata(BaseModel):
    """What is needed of a checkpoint's metadata."""

    model_config = ConfigDict(strict=True)
    normalisation: _Normalisation
    class_names: Annotated[list[str], Field(min_length=1)]
    image_shape: Annotated[list[PositiveInt], Field(min_length=3, max_length=3)]
    image_dtype: Literal["uint8", "float32"]
    data_digest: str | None = None
    privacy: Any = None


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """A network with the parameters of a checkpoint, and what its images and classes are.

    Attributes
    ----------
    run, config : the run's directory and its configuration.
    network, parameters : the network, and its vector of parameters in the configuration's dtype.
    normalisation : of the images.
    class_names : of all outputs; one that no class of the data belongs to is called by its number.
    image_dtype : of the images it was trained on: "uint8" (0 to 255), or "float32" in units of the data's own.
    data_digest : of the data set it was trained on, where that is known.
    checkpoint : the file.
    step : after how many steps.
    privacy : what those can have told of a single example, where the training was private.
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


def load_trained_run(path: Path, which: str, warn: Callable[[str], None]) -> TrainedRun:
    """Load a run; a training that writes into it at this moment is not disturbed.

    Parameters
    ----------
    path : the run's directory.
    which : the checkpoint: "last" (the newest good one), "best" (by validation accuracy), or a file: its path, or
        its name among the run's checkpoints.
    warn : told of damaged checkpoints that are passed over.

    Raises
    ------
    UserError
        There is no such run or checkpoint, or what is there does not fit together.
    """
    run = RunDirectory.open(path)
    config = read_config(run.config_path)
    _require_unchanged_network(run, config)
    state, file = _find_checkpoint(run, which, warn)
    known = _NAMED_IMAGES if config.data.name in _NAMED_DATA else {}
    try:
        metadata = _Metadata.model_validate(known | state.metadata)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RunError(f"{file}: its metadata cannot be used: {where}: {first['msg']}.") from error
    channels, rows, columns = metadata.image_shape
    normalisation = Normalisation(tuple(metadata.normalisation.mean), tuple(metadata.normalisation.std))
    if not len(normalisation.mean) == len(normalisation.std) == channels:
        raise RunError(f"{file}: its normalisation is not one of images with {channels} channels.")
    try:
        network = Network(config.network, (channels, rows, columns), len(metadata.class_names))
    except ConfigError as error:
        raise RunError(f"{file}: does not fit the configuration {run.config_path}: {error}") from error
    return TrainedRun(
        run=run,
        config=config,
        network=network,
        parameters=_fill(network, state.tensors, config.training.dtype, file, run),
        normalisation=normalisation,
        class_names=padded_names(metadata.class_names, network.num_outputs),
        image_dtype=metadata.image_dtype,
        data_digest=metadata.data_digest,
        privacy=usable_privacy(metadata.privacy),
        checkpoint=file,
        step=state.step,
    )


def padded_names(class_names: Sequence[str], num_outputs: int) -> tuple[str, ...]:
    """Return a name for each output: an output more than there are classes is called by its number."""
    return (*class_names, *map(str, range(len(class_names), num_outputs)))


def _require_unchanged_network(run: RunDirectory, config: Config) -> None:
    """Compare the configuration's network with the one that the run began with.

    A changed stride would fit the parameters, and be another network all the same. Both are read by today's rules:
    a field that has come since is no difference.
    """
    identity = run.read_run_json().get("identity")
    with contextlib.suppress(ConfigError):
        if isinstance(identity, dict) and parse_config(identity, source="run.json").network != config.network:
            raise RunError(
                f"{run.config_path}: its network was changed since the run began: {run.run_json_path} has another "
                "one. Undo the change."
            )


def _find_checkpoint(run: RunDirectory, which: str, warn: Callable[[str], None]) -> tuple[Checkpoint, Path]:
    if which == "last":
        return newest_checkpoint(run, warn)
    if which == "best":
        return _best(run, warn)
    for path in (Path(which), run.checkpoints_path / which):
        if path.is_file():
            return _load(path), path
    names = [path.name for path in run.checkpoints.files()]
    there = f"{run.path} has {', '.join(names[-LISTED:])}" if names else f"{run.path} has no checkpoint"
    raise RunError(f"--checkpoint {which}: there is no such file; {there}. Give last, best, or a file.")


def newest_checkpoint(run: RunDirectory, warn: Callable[[str], None]) -> tuple[Checkpoint, Path]:
    """Return the newest good checkpoint of a run, and its file.

    Raises
    ------
    RunError
        There is none.
    """
    found = run.checkpoints.newest_good(warn)
    if found is None and run.checkpoints.files():
        raise RunError(f"{run.path}: none of its checkpoints is good. Train it anew.")
    if found is None:
        raise RunError(f"{run.path}: has no checkpoint (yet). One is saved at the end of each epoch at the latest.")
    return found


def _best(run: RunDirectory, warn: Callable[[str], None]) -> tuple[Checkpoint, Path]:
    for _ in range(MAX_ATTEMPTS):
        state, file = newest_checkpoint(run, warn)
        best = state.metadata.get("best")
        step = best.get("step") if isinstance(best, dict) else None
        if not isinstance(step, int):
            raise RunError(f"{run.path}: has no best checkpoint: nothing was validated. Choose --checkpoint last.")
        path = run.checkpoints.path_of(step)
        if path == file:
            return state, file
        if path.is_file():
            return _load(path), path
    raise RunError(
        f"{path}: the best checkpoint, of step {step}, was not kept (checkpoints.keep_best). Choose --checkpoint last."
    )


def _load(path: Path) -> Checkpoint:
    try:
        return checkpoint.load(path)
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}.") from error


def parameters_in(tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the parameters among a checkpoint's tensors, without the optimizer's moments."""
    return {name: tensor for name, tensor in tensors.items() if is_parameter(name)}


def _fill(
    network: Network, tensors: Mapping[str, NDArray[Any]], dtype: str, file: Path, run: RunDirectory
) -> NDArray[Any]:
    """Return the vector of the network's parameters, filled from a checkpoint's tensors."""
    vector = np.empty(network.parameters.size, dtype)
    views = network.parameters.views(vector)
    found = parameters_in(tensors)
    problems = [f"{name} is no parameter of the network" for name in found if name not in views]
    for name, view in views.items():
        if name not in found:
            problems.append(f"{name} is missing")
        elif found[name].shape != view.shape or found[name].dtype.kind != "f":
            problems.append(f"{name} is {found[name].dtype}{list(found[name].shape)}, not {dtype}{list(view.shape)}")
        else:
            view[:] = found[name]
    if problems:
        more = f", and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
        raise RunError(
            f"{file}: does not fit the configuration {run.config_path}: {'; '.join(problems[:LISTED])}{more}. "
            "Give a checkpoint of this run."
        )
    return vector
