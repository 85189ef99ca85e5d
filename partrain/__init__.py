"""Trains convolutional networks on CPUs, data-parallel over processes, to the same bits every time."""

__version__ = "0.1.0"

# Of partrain.from_python, which is imported when one of them is asked for: the command line needs none of it. Their
# types are in __init__.pyi.
_FROM_PYTHON = ("Report", "Run", "open_run", "train")


def __getattr__(name: str) -> object:
    if name not in _FROM_PYTHON:
        raise AttributeError(f"module 'partrain' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module("partrain.from_python"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_FROM_PYTHON})
