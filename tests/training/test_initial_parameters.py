"""A run that begins with the parameters of another run, or of a file."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray

from partrain.config.reader import read_config
from partrain.errors import RunError
from partrain.network.network import Network
from partrain.store import checkpoint
from partrain.training.initial_parameters import read_initial_parameters
from tests.program import Result
from tests.saved_runs import write_saved_run
from tests.small_run import SMALL_CONFIG
from tests.whole_runs import Runs, outcome, read_json, rows_of, write_config

SOURCE_SEED, SEED = 3, 8
PARAMETERS = ("conv1.weight", "conv1.bias", "dense1.weight", "dense1.bias")
OF_PYTORCH = ("features.0.weight", "features.0.bias", "classifier.1.weight", "classifier.1.bias")
KEEP_ALL = {"checkpoints": {"every_steps": 4, "keep_last": 100}}
WIDER = [*SMALL_CONFIG["network"][:-1], {"dense": {"units": 12}}]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run to begin with; not to be changed."""
    return Runs(tmp_path_factory.mktemp("source")).train({"seed": SOURCE_SEED})


@pytest.fixture
def runs(tmp_path: Path, source: Path) -> Runs:
    """For runs of the test."""
    shutil.copytree(source, tmp_path / "runs" / "source")
    return Runs(tmp_path)


def start(
    runs: Runs, name: str, changes: dict[str, Any] | None = None, kill_at: str | None = None, source: str = "source"
) -> Result:
    """Train from the source's parameters, to whatever end."""
    config = write_config(runs.folder, {"seed": SEED} | (changes or {}))
    run = runs.folder / "runs" / name
    return runs.call("--config", config, "--run-dir", run, "--init-from", source, kill_at=kill_at)


def begin(runs: Runs, name: str, changes: dict[str, Any] | None = None, kill_at: str | None = None) -> Path:
    """Train from the source's parameters, to whatever end; return the run's directory."""
    start(runs, name, changes, kill_at)
    return runs.folder / "runs" / name


def begin_without(runs: Runs, changes: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """Return the parameters that a network begins with by itself."""
    config = read_config(write_config(runs.folder, {"seed": SEED} | changes))
    layout = Network(config.network, (1, 28, 28), 10).parameters
    return layout.views(layout.initial_values(SEED, "float32"))


def refusal(runs: Runs, *arguments: object, changes: dict[str, Any] | None = None) -> str:
    result = runs.call("--config", write_config(runs.folder, changes), *arguments, "--run-dir", runs.folder / "new")
    assert (result.exit_code, result.stdout) == (2, "")
    assert not (runs.folder / "new").exists()
    return result.stderr


def test_run_begins_with_the_parameters_alone_and_says_where_they_came_from(runs: Runs, source: Path) -> None:
    run = begin(runs, "new", KEEP_ALL)
    first = checkpoint.load(run / "checkpoints" / "step-00000000.safetensors")
    last = checkpoint.load(source / "checkpoints" / "step-00000020.safetensors")
    for name, tensor in first.tensors.items():
        np.testing.assert_array_equal(tensor, 0 * tensor if name.startswith("adam.") else last.tensors[name])
    assert read_json(run / "run.json")["initialised_from"] == {
        "run": str(runs.folder / "runs" / "source"),
        "checkpoint": "step-00000020.safetensors",
        "step": 20,
        "parameters_sha256": read_json(source / "summary.json")["parameters_sha256"],
        "taken": {name: name for name in PARAMETERS},
        "not_taken": [],
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


def test_strict_lists_the_parameters_that_do_not_fit_and_makes_no_run(runs: Runs) -> None:
    for dry in ((), ("--dry-run",)):
        said = refusal(runs, "--init-from", "source", "--strict", *dry, changes={"network": WIDER})
        assert "does not fit the configured network" in said
        assert "dense1.weight: 10 x 72 in the run, 12 x 72 in the network" in said
        assert "conv1" not in said


def test_partial_fit_takes_what_fits_lists_the_rest_and_resumes_to_the_same_bits(runs: Runs, source: Path) -> None:
    changes = {"network": WIDER} | KEEP_ALL
    said = start(runs, "new", changes).stderr
    assert "warning: starts from the parameters of runs/source, step 20, of which a part fits" in said
    assert "  taken: conv1\n" in said
    assert "  dense1.bias: 10 in the run, 12 in the network\n" in said
    new = runs.folder / "runs" / "new"
    begun = checkpoint.load(new / "checkpoints" / "step-00000000.safetensors").tensors
    ended = checkpoint.load(source / "checkpoints" / "step-00000020.safetensors").tensors
    usual = begin_without(runs, changes)
    np.testing.assert_array_equal(begun["conv1.weight"], ended["conv1.weight"])
    np.testing.assert_array_equal(begun["dense1.weight"], usual["dense1.weight"])
    origin = read_json(new / "run.json")["initialised_from"]
    assert origin["taken"] == {name: name for name in PARAMETERS[:2]}
    assert origin["not_taken"] == list(PARAMETERS[2:])
    start(runs, "killed", changes, kill_at="coordinator: before a step|6")
    assert runs.resume(runs.folder / "runs" / "killed").exit_code == 0
    assert outcome(runs.folder / "runs" / "killed") == outcome(new)


def test_file_of_another_program_is_matched_in_the_order_of_its_layers_and_recorded(runs: Runs, source: Path) -> None:
    tensors = checkpoint.load(source / "checkpoints" / "step-00000020.safetensors").tensors
    names = dict(zip(PARAMETERS, OF_PYTORCH, strict=True))  # `ema.` is a prefix of tensors in our checkpoints only
    halves = {f"ema.{names[name]}": tensors[name].astype(np.float16) for name in PARAMETERS}
    counter = {"ema.features.1.num_batches_tracked": np.array(7)}
    safetensors.numpy.save_file(halves | counter, runs.folder / "model.safetensors")
    said = start(runs, "new", KEEP_ALL, source="model.safetensors").stderr
    assert "starts from the parameters of model.safetensors\n" in said
    assert "taken: conv1 from ema.features.0, dense1 from ema.classifier.1" in said
    assert "matched in their order" in said
    assert "converted from float16 to float32" in said
    assert "num_batches_tracked" not in said
    new = runs.folder / "runs" / "new"
    begun = checkpoint.load(new / "checkpoints" / "step-00000000.safetensors").tensors
    for name in PARAMETERS:
        np.testing.assert_array_equal(begun[name], halves[f"ema.{names[name]}"].astype(np.float32))
    origin = read_json(new / "run.json")["initialised_from"]
    assert origin["file"] == str(runs.folder / "model.safetensors")
    assert origin["file_sha256"] == hashlib.sha256((runs.folder / "model.safetensors").read_bytes()).hexdigest()
    assert origin["taken"]["conv1.weight"] == "ema.features.0.weight"


@pytest.mark.parametrize(
    ("tensors", "fragment"),
    [
        ({"conv1.weight": np.zeros((2, 1, 7, 7), np.float32)}, "no parameter fits the configured network"),
        ({"conv1.weight": np.zeros((2, 1, 5, 5), np.int8)}, "conv1.weight (I8)"),
        ({"conv1.bias": np.array([0, np.nan], np.float32)}, "conv1.bias has a value that is not finite"),
    ],
    ids=["other-shape", "integers", "not-a-number"],
)
def test_file_without_usable_parameters_is_one_message(
    runs: Runs, tensors: dict[str, NDArray[Any]], fragment: str
) -> None:
    safetensors.numpy.save_file(tensors, runs.folder / "model.safetensors")
    for dry in ((), ("--dry-run",)):
        said = refusal(runs, "--init-from", "model.safetensors", *dry)
        assert "error: --init-from model.safetensors: " in said
        assert said.count("error: ") == 1
        assert fragment in said


def test_checkpoint_file_gives_its_parameters_without_moments(runs: Runs, source: Path) -> None:
    said = start(runs, "new", source=str(source / "checkpoints" / "step-00000020.safetensors")).stderr
    assert "adam" not in said
    assert len(read_json(runs.folder / "runs" / "new" / "run.json")["initialised_from"]["taken"]) == len(PARAMETERS)


def test_strict_needs_parameters(runs: Runs) -> None:
    assert "--strict goes with --init-from" in refusal(runs, "--strict")


def test_run_to_begin_with_must_exist_and_have_a_checkpoint(runs: Runs) -> None:
    assert "runs/source" in refusal(runs, "--init-from", "sourcce")
    assert "there is no such file" in refusal(runs, "--init-from", "source.safetensors")
    shutil.rmtree(runs.folder / "runs" / "source" / "checkpoints")
    assert "has no checkpoint yet" in refusal(runs, "--init-from", "source")


def test_parameters_take_the_new_runs_dtype_and_must_be_finite_in_it(tmp_path: Path) -> None:
    write_saved_run(tmp_path / "run", dtype="float64")
    initial = read_initial_parameters("run", tmp_path, pytest.fail)
    config = read_config(tmp_path / "run" / "config.yaml")
    network = Network(config.network, (2, 13, 11), 3)
    fit = initial.fit(network)
    vector = fit.fill(network, initial.arrays, SEED, "float32")
    assert vector.dtype == np.float32
    np.testing.assert_allclose(vector, fit.fill(network, initial.arrays, SEED, "float64"), rtol=1e-7)
    initial.arrays["conv2.bias"][1] = 1e300
    with pytest.raises(RunError, match=r"conv2\.bias has a value that is not finite in float32"):
        fit.fill(network, initial.arrays, SEED, "float32")
