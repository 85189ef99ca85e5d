"""The parameters of another run as those that a new one begins with: weights alone, no moments and no step."""

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
    """Parameters by name, and where they come from.

    Attributes
    ----------
    run : the directory of the run that they come from.
    checkpoint : the file of its checkpoint, saved after `step` steps.
    arrays : the parameters in their shapes.
    """

    run: Path
    checkpoint: Path
    step: int
    arrays: dict[str, NDArray[Any]]

    def require_fit(self, network: Network) -> None:
        """Check that they are a network's parameters, by name and shape.

        Raises
        ------
        RunError
            They are not; lists those that differ.
        """
        needed = {parameter.name: parameter.shape for parameter in network.parameters}
        there = {name: array.shape for name, array in self.arrays.items()}
        lines = [
            f"{name}: {_described(there.get(name))}, the network's is {_described(needed.get(name))}"
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
            A number is not finite in `dtype`.
        """
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is told below
            vector = network.parameters.join(self.arrays).astype(dtype)
        if not np.isfinite(vector).all():
            place = int(np.flatnonzero(~np.isfinite(vector))[0])
            raise RunError(
                f"{self.checkpoint}: {network.parameters.name_at(place)} holds a number that is not finite in {dtype}."
            )
        return vector

    def origin(self, network: Network) -> dict[str, Any]:
        """Return what a run notes of where its parameters come from."""
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
        It is no run, or has no good checkpoint.
    """
    state, file = newest_checkpoint(RunDirectory.open(path), warn)
    return InitialParameters(path, file, state.step, parameters_in(state.tensors))


def _described(shape: Shape | None) -> str:
    return "missing" if shape is None else " x ".join(str(size) for size in shape)
