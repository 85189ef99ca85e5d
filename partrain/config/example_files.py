"""The example configurations, which an installed partrain has with it: in a checkout, the directory `configs`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

# A wheel has them beside this file; pyproject.toml puts them there.
_INSTALLED = Path(__file__).with_name("examples")
_IN_CHECKOUT = Path(__file__).parents[2] / "configs"


def example_configs() -> dict[str, Path]:
    """Return the example configurations by their file names."""
    directory = _INSTALLED if _INSTALLED.is_dir() else _IN_CHECKOUT
    return {path.name: path for path in sorted(directory.glob("*.yaml"))}


def find_config(path: str, say: Callable[[str], None]) -> str:
    """Return the path of a configuration: `path`, or the example of this name if there is no such file.

    Parameters
    ----------
    path : as the user writes it; of an example, `mnist.yaml` or `configs/mnist.yaml`.
    say : receives a message if the example is used.
    """
    directory, name = os.path.split(path)
    if os.path.lexists(path) or directory not in ("", _IN_CHECKOUT.name):
        return path
    example = example_configs().get(name)
    if example is None:
        return path
    say(f"{path}: there is no such file; the example configuration {example} is used")
    return str(example)
