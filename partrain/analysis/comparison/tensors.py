"""Finds the first tensor that differs between the checkpoints of two runs, reading one tensor at a time."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.analysis.logged_run import LoggedRun
from partrain.errors import RunError
from partrain.store.checkpoint import is_intact, is_parameter, open_tensors, read_shapes
from partrain.store.run_paths import step_of_checkpoint_file

_LAYER_AND_KIND = re.compile(r"(?:.*\.)?([a-z]+)(\d+)\.(\w+)")


def first_different_tensor(first: LoggedRun, second: LoggedRun) -> dict[str, Any] | None:
    """Return the first tensor that differs, in the first step of which both runs have a checkpoint and these differ.

    Steps with a damaged checkpoint are skipped, with a note in its run.

    Returns
    -------
    `step`; `tensor`, the name of the first tensor that differs in any bit: in the order of the layers, parameters
    before the optimizer's moments; `num_different` and `num_tensors`, of those that both have. None if no checkpoints
    differ, or if the networks have different parameters.
    """
    files = [_checkpoint_files(run) for run in (first, second)]
    for step in sorted(files[0].keys() & files[1].keys()):
        paths = files[0][step], files[1][step]
        try:
            names, different = _compare(*paths)
            damaged = [path for path in paths if different and not is_intact(path)]
        except (RunError, OSError) as error:
            first.notes.append(f"step {step:,} is left out of the comparison of checkpoints: {error}")
            continue
        for run, path in zip((first, second), paths, strict=True):
            if path in damaged:
                run.notes.append(f"{path.name} is damaged, and is left out of the comparison of checkpoints")
        if different and not damaged:
            return {"step": step, "tensor": different[0], "num_different": len(different), "num_tensors": len(names)}
    return None


def _checkpoint_files(run: LoggedRun) -> dict[int, Path]:
    try:
        paths = run.directory.checkpoints.files()
    except OSError as error:
        run.notes.append(f"the checkpoints cannot be read: {error.strerror}")
        return {}
    steps = {step_of_checkpoint_file(path.name): path for path in paths}
    return {step: path for step, path in steps.items() if step is not None}


def _compare(first: Path, second: Path) -> tuple[list[str], list[str]]:
    """Return the names of the tensors of both checkpoints, and of those that differ; none if the networks differ."""
    shapes, other_shapes = read_shapes(first), read_shapes(second)
    if {n: s for n, s in shapes.items() if is_parameter(n)} != {
        n: s for n, s in other_shapes.items() if is_parameter(n)
    }:
        return [], []
    names = sorted(shapes.keys() & other_shapes.keys(), key=_position)
    with open_tensors(first) as read, open_tensors(second) as read_other:
        return names, [name for name in names if not _same_bits(read(name), read_other(name))]


def _same_bits(first: NDArray[Any], second: NDArray[Any]) -> bool:
    return np.array_equal(first.reshape(-1).view(np.uint8), second.reshape(-1).view(np.uint8))


def _position(name: str) -> tuple[bool, str, int, bool, str]:
    """Return where a tensor stands: parameters first, convolutions before dense layers, weights before biases."""
    match = _LAYER_AND_KIND.fullmatch(name)
    layer, number, kind = (match[1], int(match[2]), match[3]) if match else ("", 0, "")
    return not is_parameter(name), layer, number, kind != "weight", name
