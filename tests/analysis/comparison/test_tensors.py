from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from partrain.analysis.comparison.comparison import compare
from partrain.analysis.logged_run import LoggedRun
from partrain.store.checkpoint import Checkpoint
from partrain.store.checkpoint_directory import CheckpointDirectory
from tests.program import Result
from tests.sample_runs import write_json, write_run

NAMES = ("conv1.weight", "conv1.bias", "conv2.weight", "conv10.weight", "dense1.weight")


def write_checkpoints(path: Path, changes_of_steps: Mapping[int, Mapping[str, Any]], **options: Any) -> Path:
    """Write a run with a checkpoint per step; `changes_of_steps` replace tensors of zeros."""
    run = write_run(path, **options)
    write_json(run / "summary.json", {"format": 1, "parameters_sha256": path.name})
    CheckpointDirectory(run / "checkpoints").files()[0].unlink()
    for step, changes in changes_of_steps.items():
        tensors = {name: np.zeros((2, 3), np.float32) for name in (*NAMES, "adam.first_moment.conv1.weight")}
        tensors |= {name: np.full((2, 3), value, np.float32) for name, value in changes.items()}
        CheckpointDirectory(run / "checkpoints").save(Checkpoint(tensors, {"step": step}))
    return run


def checkpoint_of(run: Path, step: int) -> Path:
    return CheckpointDirectory(run / "checkpoints").path_of(step)


def first_difference(*runs: Path) -> dict[str, Any] | None:
    (entry,) = compare([LoggedRun.open(run) for run in runs])["parameters"]
    found: dict[str, Any] | None = entry["tensors_differ_at"]
    return found


def test_first_tensor_that_differs_is_named_in_the_order_of_the_layers(
    tmp_path: Path, call_partrain: Callable[..., Result]
) -> None:
    a = write_checkpoints(tmp_path / "a", {5: {"dense1.weight": 9}, 10: {}, 20: {}, 30: {}})
    b = write_checkpoints(
        tmp_path / "b",
        {10: {}, 20: {"adam.first_moment.conv1.weight": 1, "conv10.weight": 1, "conv2.weight": -0.0}, 30: {"x.y": 1}},
    )
    expected = {"step": 20, "tensor": "conv2.weight", "num_different": 3, "num_tensors": 6}
    assert first_difference(a, b) == expected
    said = "step 20 are the first that differ: first tensor conv2.weight, 3 of 6 tensors in all"
    assert said in call_partrain("compare", a, b).stdout
    assert call_partrain("compare", a, b, "--html", tmp_path / "page.html", "-q").exit_code == 0
    assert said in (tmp_path / "page.html").read_text()


def test_moments_of_the_optimizer_are_compared_after_the_parameters(tmp_path: Path) -> None:
    a = write_checkpoints(tmp_path / "a", {10: {}})
    b = write_checkpoints(tmp_path / "b", {10: {"adam.first_moment.conv1.weight": 1}})
    assert first_difference(a, b) == {
        "step": 10,
        "tensor": "adam.first_moment.conv1.weight",
        "num_different": 1,
        "num_tensors": 6,
    }


@pytest.mark.parametrize("damage", ["header", "payload", "cut", "empty", "unreadable"])
def test_damaged_checkpoint_is_skipped_with_a_note(
    tmp_path: Path, damage: str, call_partrain: Callable[..., Result]
) -> None:
    a = write_checkpoints(tmp_path / "a", {10: {}, 20: {}})
    b = write_checkpoints(tmp_path / "b", {10: {}, 20: {"conv2.weight": 1}})
    path = checkpoint_of(b, 10)
    content = bytearray(path.read_bytes())
    content[{"header": 12, "payload": -1}.get(damage, 0)] ^= 1
    if damage == "unreadable":
        path.unlink()
        path.symlink_to(a / "run.json")
    else:
        path.write_bytes({"cut": content[:-5], "empty": b""}.get(damage, content))
    found = first_difference(a, b)
    assert found is not None
    assert (found["step"], found["tensor"]) == (20, "conv2.weight")
    result = call_partrain("compare", a, b)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "left out of the comparison of checkpoints" in result.stdout


def test_different_networks_have_no_first_tensor(tmp_path: Path) -> None:
    a = write_checkpoints(tmp_path / "a", {10: {}})
    b = write_checkpoints(tmp_path / "b", {10: {"dense2.weight": 1}})
    assert first_difference(a, b) is None


def test_equal_runs_have_no_first_tensor(tmp_path: Path) -> None:
    a, b = (write_checkpoints(tmp_path / name, {10: {}, 40: {}}) for name in "ab")
    assert first_difference(a, b) is None
