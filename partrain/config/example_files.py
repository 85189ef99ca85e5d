"""The example configurations, which an installed partrain has with it: in a checkout, the directory `configs`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from partrain.errors import did_you_mean

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
    if os.path.lexists(path) or not _may_be_example(path):
        return path
    example = example_configs().get(os.path.basename(path))
    if example is None:
        return path
    say(f"{path}: there is no such file; the example configuration {example} is used")
    return str(example)


def suggest_example(path: str) -> str:
    """Return the end of a message that a configuration is missing: the example that is meant; empty if none is."""
    return did_you_mean(os.path.basename(path), example_configs(), 0.8) if _may_be_example(path) else ""


def _may_be_example(path: str) -> bool:
    return os.path.dirname(path) in ("", _IN_CHECKOUT.name)
