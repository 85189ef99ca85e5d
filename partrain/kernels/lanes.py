"""Finds the version of a kernel for narrow vectors, with the same bits.

On a processor with vectors of 16 float32, all kernels are declared twice, from the same source: in `partrain.kernels`
for vectors of 16, and in `partrain.kernels.eight_lanes` for vectors of 8. What is not loaded is not compiled.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, TypeVar

from partrain.kernels.simd.vectors import EIGHT_LANES, LANES

# The lanes of narrow kernels; where that is LANES, they are the same kernels.
NARROW = min(8, LANES)

_KERNELS = EIGHT_LANES.rpartition(".")[0]
_Function = TypeVar("_Function", bound=Callable[..., Any])


def with_lanes(function: _Function, lanes: int) -> _Function:
    """Return the version of a kernel for vectors of `lanes` numbers.

    Parameters
    ----------
    function : a kernel, or a function of its file that depends on the lanes, in either version.
    lanes : LANES or NARROW.
    """
    of_kernels = function.__module__.removeprefix(EIGHT_LANES).removeprefix(_KERNELS)
    module = (_KERNELS if lanes == LANES else EIGHT_LANES) + of_kernels
    version: _Function = getattr(importlib.import_module(module), function.__name__)
    return version
