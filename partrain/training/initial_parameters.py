"""Initial parameters from another run or from a file: parameters only, without an optimizer's state or a step number.

Those that fit the network by name and shape are taken. The others begin at their usual initial values.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.analysis.trained_run import newest_checkpoint, parameters_in
from partrain.errors import RunError
from partrain.network.layers import Shape
from partrain.network.network import Network
from partrain.network.parameters import digest
from partrain.store.checkpoint import is_parameter
from partrain.store.run_directory import RunDirectory
from partrain.store.run_lookup import find_run
from partrain.store.tensor_file import read_tensors
from partrain.system.messages import Messages
from partrain.training.parameter_matching import match_parameters, split_name
from partrain.training.plan import TrainingPlan

# A counter of PyTorch's batch normalisation, which changes no result.
_COUNTER = "num_batches_tracked"
_LINE_WIDTH = 78


@dataclass(frozen=True)
class Fit:
    """How tensors fit a network.

    Attributes
    ----------
    taken : the name of the tensor that each parameter is taken from.
    other_shape : the tensor that belongs to a parameter, but has another shape: its name, and the shapes of both.
    missing : the parameters without a tensor.
    unused : the tensors without a parameter.
    """

    taken: dict[str, str]
    other_shape: dict[str, tuple[str, Shape, Shape]]
    missing: tuple[str, ...]
    unused: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """Whether all parameters are taken, and all tensors used."""
        return not (self.other_shape or self.missing or self.unused)

    def fill(self, network: Network, arrays: Mapping[str, NDArray[Any]], seed: int, dtype: str) -> NDArray[Any]:
        """Return the network's vector of parameters (size,) in `dtype`: those taken from `arrays`, and initial values.

        Raises
        ------
        RunError
            A value is not finite in `dtype`.
        """
        vector = network.parameters.initial_values(seed, dtype)
        for name, view in network.parameters.views(vector).items():
            if name in self.taken:
                with np.errstate(over="ignore"):  # numbers that are too large become infinite, and are reported below
                    view[...] = arrays[self.taken[name]]
                if not np.isfinite(view).all():
                    raise RunError(f"{self.taken[name]} has a value that is not finite in {dtype}.")
        return vector


def fit_parameters(network: Network, arrays: Mapping[str, NDArray[Any]]) -> Fit:
    """Find out which arrays fit the network."""
    needed = {parameter.name: parameter.shape for parameter in network.parameters}
    matched = match_parameters(needed, {name: array.shape for name, array in arrays.items()})
    fits = {name: arrays[tensor].shape == needed[name] for name, tensor in matched.items()}
    other_shape = {
        name: (tensor, arrays[tensor].shape, needed[name]) for name, tensor in matched.items() if not fits[name]
    }
    return Fit(
        taken={name: matched[name] for name in needed if fits.get(name)},
        other_shape={name: other_shape[name] for name in needed if name in other_shape},
        missing=tuple(name for name in needed if name not in matched),
        unused=tuple(name for name in arrays if name not in set(matched.values())),
    )


@dataclass(frozen=True, eq=False)
class InitialParameters:
    """Parameters to start from.

    Attributes
    ----------
    source : where they are from, as the user named it.
    place : "run" or "file", for messages.
    arrays : floating-point arrays by name, each in its shape.
    dtypes : their types by name; "bfloat16" arrays are float32.
    others : the types of tensors that are not numbers of floating point, by name.
    facts : what run.json records of the source.
    strict : whether a partial fit is an error.
    """

    source: str
    place: str
    arrays: dict[str, NDArray[Any]]
    dtypes: dict[str, str]
    others: dict[str, str]
    facts: dict[str, Any]
    strict: bool = False

    def fit(self, network: Network) -> Fit:
        """Find out what fits the network.

        Raises
        ------
        RunError
            Nothing does; or with `strict`, not everything does. The message lists what does not.
        """
        fit = fit_parameters(network, self.arrays)
        lines = self._differences(fit)
        if not fit.taken:
            first = f"--init-from {self.source}: no parameter fits the configured network:"
            advice = "the names of the layers are those of --dry-run; rename the tensors, or change the network"
            raise RunError("\n  ".join([first, *lines, advice]))
        if self.strict and lines:
            first = f"--init-from {self.source} --strict: does not fit the configured network; these parameters differ:"
            raise RunError("\n  ".join([first, *lines]))
        return fit

    def starting_point(self, plan: TrainingPlan, messages: Messages) -> tuple[NDArray[Any], dict[str, Any]]:
        """Say what is taken; return the vector that the training starts from, and its origin for run.json.

        Raises
        ------
        RunError
            As for `fit`; or a value is not finite.
        """
        fit, dtype = self.fit(plan.network), plan.config.training.dtype
        try:
            vector = fit.fill(plan.network, self.arrays, plan.config.seed, dtype)
        except RunError as error:
            raise RunError(f"--init-from {self.source}: {error}") from error
        self._report(fit, dtype, messages)
        return vector, self._origin(plan.network, fit)

    def _report(self, fit: Fit, dtype: str, messages: Messages) -> None:
        """Say what is taken, what is not, and what is converted; a partial fit is a warning."""
        text = f"starts from the parameters of {self.source}"
        if "step" in self.facts:
            text += f", step {self.facts['step']:,}"
        lines = self._differences(fit)
        layers = _layers_from(fit.taken)
        is_renamed = any(layer != other for layer, other in layers.items())
        named = (layer if layer == other else f"{layer} from {other}" for layer, other in layers.items())
        taken = _wrapped("taken", named)
        if is_renamed:
            taken.append("layers with other names are matched in their order: check the pairs")
        if lines:
            messages.warn("\n  ".join([f"{text}, of which a part fits (--strict refuses this)", *taken, *lines]))
        else:
            messages.say("\n  ".join([text, *taken] if is_renamed else [text]))
        converted = sorted({self.dtypes[tensor] for tensor in fit.taken.values()} - {dtype})
        if converted:
            messages.say(f"they are converted from {' and '.join(converted)} to {dtype}")

    def _origin(self, network: Network, fit: Fit) -> dict[str, Any]:
        """Return the origin of the parameters, as run.json records it."""
        facts = dict(self.facts)
        if fit.is_complete:
            facts["parameters_sha256"] = digest(
                network.parameters.join({name: self.arrays[tensor] for name, tensor in fit.taken.items()})
            )
        not_taken = [*fit.other_shape, *fit.missing]
        return facts | {"taken": fit.taken, "not_taken": not_taken}

    def _differences(self, fit: Fit) -> list[str]:
        """Return lines that say what does not fit."""
        lines = [
            f"{name}: {_described(there)} in the {self.place}{'' if tensor == name else f' ({tensor})'}, "
            f"{_described(needed)} in the network"
            for name, (tensor, there, needed) in fit.other_shape.items()
        ]
        unused = [*fit.unused, *(f"{name} ({dtype})" for name, dtype in self.others.items())]
        lines += _wrapped(f"missing in the {self.place}", fit.missing)
        lines += _wrapped(f"not used in the {self.place}", unused)
        return lines


def require_fit(initial: InitialParameters | None, plan: TrainingPlan) -> None:
    """Check that the parameters to start from, if there are any, fit the plan's network.

    Raises
    ------
    RunError
        As for `InitialParameters.fit`.
    """
    if initial is not None:
        initial.fit(plan.network)


def read_initial_parameters(
    source: str, runs_dir: Path, warn: Callable[[str], None], *, strict: bool = False
) -> InitialParameters:
    """Read the parameters of a safetensors file, or of the newest good checkpoint of a run.

    Parameters
    ----------
    source : the path of a file, or a run, as for `find_run`.
    runs_dir : the directory of runs.
    warn : receives warnings about damaged checkpoints.
    strict : whether a partial fit is an error.

    Raises
    ------
    RunError
        There is no such file or run, or it has no parameters.
    ResourceError
        The file does not fit into memory.
    """
    if os.path.isfile(source):
        return _from_file(Path(source), strict)
    if source.endswith(".safetensors"):
        raise RunError(f"--init-from {source}: there is no such file.")
    path = find_run(source, runs_dir)
    state, file = newest_checkpoint(RunDirectory.open(path), warn)
    arrays = parameters_in(state.tensors)
    facts = {"run": str(path.absolute()), "checkpoint": file.name, "step": state.step}
    dtypes = {name: str(array.dtype) for name, array in arrays.items()}
    return InitialParameters(str(path), "run", arrays, dtypes, {}, facts, strict)


def _from_file(path: Path, strict: bool) -> InitialParameters:
    content = read_tensors(path)
    names = [name for name in content.dtypes if split_name(name)[1] != _COUNTER]
    if content.is_checkpoint:
        names = [name for name in names if is_parameter(name)]
    arrays = {name: content.arrays[name] for name in names if name in content.arrays}
    others = {name: content.dtypes[name] for name in names if name not in content.arrays}
    facts = {"file": str(path.absolute()), "file_sha256": content.sha256}
    return InitialParameters(str(path), "file", arrays, content.dtypes, others, facts, strict)


def _layers_from(taken: Mapping[str, str]) -> dict[str, str]:
    """Return the layer that each layer of the network is taken from."""
    return {split_name(name)[0]: split_name(tensor)[0] for name, tensor in taken.items()}


def _wrapped(heading: str, names: Iterable[str]) -> list[str]:
    """Return lines that list names under a heading; none without names."""
    text = ", ".join(names)
    return textwrap.wrap(f"{heading}: {text}", _LINE_WIDTH, subsequent_indent="    ") if text else []


def _described(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "a number"
