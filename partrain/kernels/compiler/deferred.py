"""Modules that are imported when one of their names is used: Numba and LLVM, which only compiling needs.

Their import takes 0.2 s and 60 MB in each process, and kernels from the cache need neither.
"""

from __future__ import annotations

import importlib
from typing import Any


class DeferredModule:
    """Stands for a module until it is used.

    Parameters
    ----------
    name : the module's full name.
    """

    def __init__(self, name: str) -> None:
        self._module_name = name

    def __getattr__(self, name: str) -> Any:
        value = getattr(importlib.import_module(self._module_name), name)
        setattr(self, name, value)  # the next use finds it without this function
        return value


ir = DeferredModule("llvmlite.ir")
numba = DeferredModule("numba")
types = DeferredModule("numba.core.types")
cgutils = DeferredModule("numba.core.cgutils")
