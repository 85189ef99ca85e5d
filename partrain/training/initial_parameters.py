"""Initial parameters from another run: its parameters only, without the optimizer's moments and the step number."""

from __future__ import annotations

from collections.abc import Callable
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
from partrain.store.run_directory import RunDirectory


@dataclass(frozen=True, eq=False)
class InitialParameters:
    """The parameters of a checkpoint of another run.

    Attributes
    ----------
    run : the directory of that run.
    checkpoint : the path of the checkpoint.
    step : the step after which the checkpoint was saved.
    arrays : the parameters by name, each in its shape.
    """

    run: Path
    checkpoint: Path
    step: int
    arrays: dict[str, NDArray[Any]]

    def require_fit(self, network: Network) -> None:
        """Check that names and shapes are those of the network's parameters.

        Raises
        ------
        RunError
            They are not; the message lists the parameters that differ.
        """
        needed = {parameter.name: parameter.shape for parameter in network.parameters}
        there = {name: array.shape for name, array in self.arrays.items()}
        lines = [
            f"{name}: {_described(there.get(name))} in the run, {_described(needed.get(name))} in the network"
            for name in needed | there
            if needed.get(name) != there.get(name)
        ]
        if lines:
            message = f"--init-from {self.run}: does not fit the configured network; these parameters differ:"
            raise RunError("\n  ".join([message, *lines]))

    def vector(self, network: Network, dtype: str) -> NDArray[Any]:
        """Return the network's vector of parameters (size,) in `dtype`.

        Raises
        ------
        RunError
            A value is not finite in `dtype`.
        """
        with np.errstate(over="ignore"):  # numbers that are too large become infinite, and are reported below
            vector = network.parameters.join(self.arrays).astype(dtype)
        if not np.isfinite(vector).all():
            place = int(np.flatnonzero(~np.isfinite(vector))[0])
            raise RunError(
                f"{self.checkpoint}: {network.parameters.name_at(place)} has a value that is not finite in {dtype}."
            )
        return vector

    def origin(self, network: Network) -> dict[str, Any]:
        """Return the origin of the parameters, as run.json records it."""
        return {
            "run": str(self.run.absolute()),
            "checkpoint": self.checkpoint.name,
            "step": self.step,
            "parameters_sha256": digest(network.parameters.join(self.arrays)),
        }


def read_initial_parameters(path: Path, warn: Callable[[str], None]) -> InitialParameters:
    """Read the parameters of the newest good checkpoint of the run at `path`.

    Raises
    ------
    RunError
        `path` is not a run, or the run has no good checkpoint.
    """
    state, file = newest_checkpoint(RunDirectory.open(path), warn)
    return InitialParameters(path, file, state.step, parameters_in(state.tensors))


def _described(shape: Shape | None) -> str:
    return "missing" if shape is None else " x ".join(str(size) for size in shape)
