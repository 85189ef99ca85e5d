"""Trains convolutional networks on CPUs, data-parallel over processes and bit-for-bit reproducible."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from partrain.interface.python_api import Report as Report
    from partrain.interface.python_api import Run as Run
    from partrain.interface.python_api import open_run as open_run
    from partrain.interface.python_api import train as train

__version__ = "0.2.0"

# The Python API. It is imported on first use, because it brings Numba and the command line starts without it.
_PYTHON_API = ("Report", "Run", "open_run", "train")


def __getattr__(name: str) -> object:
    if name not in _PYTHON_API:
        raise AttributeError(f"module 'partrain' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module("partrain.interface.python_api"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PYTHON_API})
