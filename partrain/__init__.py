"""Trains convolutional networks on CPUs, data-parallel over processes, bit for bit the same every time."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from partrain.interface.python_api import Report as Report
    from partrain.interface.python_api import Run as Run
    from partrain.interface.python_api import open_run as open_run
    from partrain.interface.python_api import train as train

__version__ = "0.1.0"

# Names of partrain.interface.python_api. They are imported on first use, because the command line does not need them.
_PYTHON_API = ("Report", "Run", "open_run", "train")


def __getattr__(name: str) -> object:
    if name not in _PYTHON_API:
        raise AttributeError(f"module 'partrain' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module("partrain.interface.python_api"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PYTHON_API})
