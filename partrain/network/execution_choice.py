"""Chooses the execution that a configuration asks for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from numpy.typing import NDArray

from partrain.kernels.compiler.flags import Kernel, require_compiler
from partrain.network.execution import Execution
from partrain.network.fast_execution import FastExecution
from partrain.network.layers import Layer
from partrain.network.loops_execution import LoopsExecution
from partrain.network.network import Network
from partrain.network.normalisation import Normalisation


def make_execution(
    kernels: str,
    network: Network,
    parameters: NDArray[Any],
    normalisation: Normalisation,
    tile: int,
    dtype: str,
    *,
    keeps_gradients: bool,
) -> Execution:
    """Return the network with buffers and kernels; these must be loaded for `dtype` before it computes.

    Parameters
    ----------
    kernels : "fast" (float32 only) or "loops".
    network, parameters, normalisation, tile : as for `LoopsExecution`.
    dtype : "float32" or "float64".
    keeps_gradients : see `FastExecution`.
    """
    if kernels == "fast":
        return FastExecution(network, parameters, normalisation, tile, keeps_gradients=keeps_gradients)
    return LoopsExecution(network, parameters, normalisation, tile, dtype)


def execution_kernels(kernels: str, layers: Iterable[Layer]) -> tuple[Kernel, ...]:
    """Return the kernels that the execution calls for these layers.

    Raises
    ------
    ConfigError
        The kernels must be compiled, and Numba does not compile.
    """
    if kernels == "fast":
        require_compiler()
    called = {"fast": FastExecution.kernels, "loops": LoopsExecution.kernels}[kernels]
    return called(layers)
