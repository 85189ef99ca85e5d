"""Which execution a configuration asks for."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from partrain.network.execution import Execution, LoopsExecution
from partrain.network.fast_execution import FastExecution
from partrain.network.network import Network
from partrain.network.normalisation import Normalisation


def make_execution(
    kernels: str, network: Network, parameters: NDArray[Any], normalisation: Normalisation, tile: int, dtype: str
) -> Execution:
    """Return the network with buffers and kernels, which are loaded for `dtype`.

    Parameters
    ----------
    kernels : "fast" (float32 alone) or "loops".
    network, parameters, normalisation, tile : as `LoopsExecution` takes them.
    dtype : "float32" or "float64".
    """
    if kernels == "fast":
        return FastExecution(network, parameters, normalisation, tile)
    return LoopsExecution(network, parameters, normalisation, tile, dtype)
