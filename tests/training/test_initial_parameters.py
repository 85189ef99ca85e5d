"""A run that begins with another run's parameters."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from partrain.config.reader import read_config
from partrain.errors import RunError
from partrain.network.network import Network
from partrain.store import checkpoint
from partrain.training.initial_parameters import read_initial_parameters
from tests.saved_runs import write_saved_run
from tests.small_run import SMALL_CONFIG
from tests.whole_runs import Runs, outcome, read_json, rows_of, write_config

SOURCE_SEED, SEED = 3, 8


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run to begin with; not to be changed."""
    return Runs(tmp_path_factory.mktemp("source")).train({"seed": SOURCE_SEED})


@pytest.fixture
def runs(tmp_path: Path, source: Path) -> Runs:
    """For runs of the test."""
    shutil.copytree(source, tmp_path / "runs" / "source")
    return Runs(tmp_path)


def begin(runs: Runs, name: str, changes: dict[str, Any] | None = None, kill_at: str | None = None) -> Path:
    """Train from the source's parameters, to whatever end; return the run's directory."""
    config = write_config(runs.folder, {"seed": SEED} | (changes or {}))
    run = runs.folder / "runs" / name
    runs.call("--config", config, "--run-dir", run, "--init-from", "source", kill_at=kill_at)
    return run


def refusal(runs: Runs, *arguments: object, changes: dict[str, Any] | None = None) -> str:
    result = runs.call("--config", write_config(runs.folder, changes), *arguments, "--run-dir", runs.folder / "new")
    assert (result.exit_code, result.stdout) == (2, "")
    assert not (runs.folder / "new").exists()
    return result.stderr


def test_run_begins_with_the_parameters_alone_and_says_where_they_came_from(runs: Runs, source: Path) -> None:
    run = begin(runs, "new", {"checkpoints": {"every_steps": 4, "keep_last": 100}})
    first = checkpoint.load(run / "checkpoints" / "step-00000000.safetensors")
    last = checkpoint.load(source / "checkpoints" / "step-00000020.safetensors")
    for name, tensor in first.tensors.items():
        np.testing.assert_array_equal(tensor, 0 * tensor if name.startswith("adam.") else last.tensors[name])
    assert read_json(run / "run.json")["initialised_from"] == {
        "run": str(runs.folder / "runs" / "source"),
        "checkpoint": "step-00000020.safetensors",
        "step": 20,
        "parameters_sha256": read_json(source / "summary.json")["parameters_sha256"],
    }
    config = read_config(run / "config.yaml")
    assert read_json(run / "run.json")["identity"] == config.identity()
    assert "source" not in config.to_yaml()
    assert rows_of(run)[0]["train/loss"] < rows_of(source)[0]["train/loss"]


@pytest.mark.parametrize(
    "kill_at",
    ["coordinator: before a step|1", "coordinator: before a step|3", "coordinator: before a step|16"],
    ids=["before-the-first-step", "before-the-first-save", "in-the-second-epoch"],
)
def test_resumed_run_has_the_bits_of_the_uninterrupted_run(runs: Runs, kill_at: str) -> None:
    whole, killed = begin(runs, "whole"), begin(runs, "killed", kill_at=kill_at)
    assert read_json(killed / "run.json")["status"] == "running"
    shutil.rmtree(runs.folder / "runs" / "source")  # it is not needed any more
    assert runs.resume(killed).exit_code == 0
    assert outcome(killed) == outcome(whole)
    assert "initialised_from" in read_json(killed / "run.json")


def test_run_whose_first_checkpoint_was_deleted_does_not_begin_with_other_parameters(runs: Runs) -> None:
    run = begin(runs, "new", kill_at="coordinator: before a step|2")
    shutil.rmtree(run / "checkpoints")
    result = runs.resume(run)
    assert result.exit_code == 2
    assert "has no good checkpoint to resume from" in result.stderr


def test_parameters_that_do_not_fit_are_listed_and_no_run_is_made(runs: Runs) -> None:
    wider = [*SMALL_CONFIG["network"][:-1], {"dense": {"units": 12}}]
    for dry in ((), ("--dry-run",)):
        said = refusal(runs, "--init-from", "source", *dry, changes={"network": wider})
        assert "does not fit the configured network" in said
        assert "dense1.weight: 10 x 72 in the run, 12 x 72 in the network" in said
        assert "conv1" not in said


def test_run_to_begin_with_must_exist_and_have_a_checkpoint(runs: Runs) -> None:
    assert "runs/source" in refusal(runs, "--init-from", "sourcce")
    shutil.rmtree(runs.folder / "runs" / "source" / "checkpoints")
    assert "has no checkpoint yet" in refusal(runs, "--init-from", "source")


def test_parameters_take_the_new_runs_dtype_and_must_be_finite_in_it(tmp_path: Path) -> None:
    write_saved_run(tmp_path / "run", dtype="float64")
    initial = read_initial_parameters(tmp_path / "run", pytest.fail)
    config = read_config(tmp_path / "run" / "config.yaml")
    network = Network(config.network, (2, 13, 11), 3)
    vector = initial.vector(network, "float32")
    assert vector.dtype == np.float32
    np.testing.assert_allclose(vector, initial.vector(network, "float64"), rtol=1e-7)
    initial.arrays["conv2.bias"][1] = 1e300
    with pytest.raises(RunError, match=r"conv2\.bias has a value that is not finite in float32"):
        initial.vector(network, "float32")
