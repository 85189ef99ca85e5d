"""The Python API: runs are exported and resumed, from any of their checkpoints."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import partrain
from partrain.errors import ConfigError, DataError, RunError
from partrain.store.checkpoint import is_parameter, load
from tests.noise_data import noise_examples
from tests.program import Result
from tests.small_run import SMALL_CONFIG, interrupt_after_a_logged_step

CONFIG: dict[str, Any] = {name: value for name, value in SMALL_CONFIG.items() if name != "data"} | {
    "logging": {"plots": False, "every_steps": 1},
    "checkpoints": {"every_steps": 1, "keep_last": 9},
}
TRAIN, TEST = noise_examples(60), noise_examples(20, seed=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> partrain.Run:
    """A run of three steps whose best checkpoint is made to be that of step 1."""
    folder = tmp_path_factory.mktemp("methods") / "run"
    run = partrain.train(CONFIG, data=TRAIN, test=TEST, workers=0, run_dir=folder, quiet=True)
    from partrain.store.run_directory import RunDirectory

    checkpoints = RunDirectory.open(folder).checkpoints
    state = load(checkpoints.path_of(3))
    state.metadata["best"]["step"] = 1
    checkpoints.save(state)
    return run


def parameters(run: partrain.Run, step: int) -> dict[str, Any]:
    tensors = load(run.path / "checkpoints" / f"step-{step:08d}.safetensors").tensors
    return {name: tensor for name, tensor in tensors.items() if is_parameter(name)}


@pytest.mark.parametrize(("checkpoint", "step"), [("last", 3), ("best", 1), ("step-00000002.safetensors", 2)])
def test_export_writes_the_parameters_of_the_named_checkpoint(
    run: partrain.Run, call_partrain: Callable[..., Result], tmp_path: Path, checkpoint: str, step: int
) -> None:
    written = run.export(tmp_path / "model.safetensors", checkpoint=checkpoint)
    assert written == tmp_path / "model.safetensors"
    exported, expected = safetensors.numpy.load_file(written), parameters(run, step)
    assert exported.keys() == expected.keys()
    assert all(np.array_equal(exported[name], expected[name]) for name in expected)
    arguments = ("export", run.path, "--to", tmp_path / "again.safetensors", "--checkpoint", checkpoint)
    assert call_partrain(*arguments).exit_code == 0
    assert (tmp_path / "again.safetensors").read_bytes() == written.read_bytes()


def test_export_of_metrics_takes_no_checkpoint(
    run: partrain.Run, call_partrain: Callable[..., Result], tmp_path: Path
) -> None:
    assert run.export(tmp_path / "table", format="csv").read_text().startswith("step,epoch,")
    with pytest.raises(ConfigError, match="--checkpoint best: goes with parameters; csv holds the run's metrics"):
        run.export(tmp_path / "metrics.csv", checkpoint="best")
    with pytest.raises(ConfigError, match="suffix does not select a format"):
        run.export(tmp_path / "model.pt")
    with pytest.raises(RunError, match="there is no such file"):
        run.export(tmp_path / "model.npz", checkpoint="step-00000009.safetensors")


def test_examples_are_those_of_the_named_checkpoint(call_partrain: Callable[..., Result], tmp_path: Path) -> None:
    config = SMALL_CONFIG | {"logging": CONFIG["logging"], "checkpoints": CONFIG["checkpoints"]}
    run = partrain.train(config, workers=0, run_dir=tmp_path / "run", quiet=True)
    for checkpoint, step in (("step-00000002.safetensors", 2), ("last", 10)):
        result = call_partrain("examples", run.path, "--checkpoint", checkpoint, "--top", 1, "--json")
        assert json.loads(result.stdout)["step"] == step


def test_resume_trains_further_on_the_arrays_of_the_run(tmp_path: Path) -> None:
    longer = CONFIG | {"training": CONFIG["training"] | {"epochs": 2}}
    expected = partrain.train(longer, data=TRAIN, test=TEST, workers=0, run_dir=tmp_path / "longer", quiet=True)
    run = partrain.train(CONFIG, data=TRAIN, test=TEST, workers=0, run_dir=tmp_path / "run", quiet=True)
    resumed = run.resume(epochs=2, changes={"logging.every_steps": 2}, workers=0)
    assert resumed.summary["parameters_sha256"] == expected.summary["parameters_sha256"]
    assert resumed.config.logging.every_steps == 2
    assert resumed.evaluate(workers=0).accuracy == expected.evaluate(workers=0).accuracy


def test_run_on_arrays_that_was_opened_again_is_resumed_with_the_same_arrays(tmp_path: Path) -> None:
    config = CONFIG | {"training": CONFIG["training"] | {"epochs": 100_000}}

    thread = threading.Thread(target=interrupt_after_a_logged_step, args=[tmp_path / "run"])
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        partrain.train(config, data=TRAIN, test=TEST, workers=0, run_dir=tmp_path / "run", quiet=True)
    thread.join()
    run = partrain.open_run(tmp_path / "run", quiet=True)
    last = run.metrics[-1]["step"]
    with pytest.raises(DataError, match="arrays of a Python program"):
        run.resume(max_steps=last + 1, workers=0)
    with pytest.raises(DataError, match="the data changed"):
        run.resume(max_steps=last + 1, data=noise_examples(60, seed=9), test=TEST, workers=0)
    assert run.resume(max_steps=last + 1, data=TRAIN, test=TEST, workers=0).summary["steps"] == last + 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "epochs: 0 is not a whole number from 1"),
        ({"max_steps": 2.5}, "max_steps: 2.5 is not a whole number"),
        ({"changes": {"seed": 1}}, "a resumed run can change only"),
        ({"changes": {"logging.every_steps": "often"}}, "logging.every_steps: must be a whole number"),
        ({"changes": {"logging.every_steps": object()}}, "changes: "),
        ({"workers": -1}, "workers: -1"),
    ],
)
def test_invalid_argument_of_resume_is_an_error(run: partrain.Run, arguments: dict[str, Any], message: str) -> None:
    before = (run.path / "run.json").read_bytes()
    with pytest.raises(ConfigError, match=message):
        run.resume(**({"workers": 0} | arguments))
    assert (run.path / "run.json").read_bytes() == before


def test_training_starts_from_a_run_a_path_or_a_file(run: partrain.Run, tmp_path: Path) -> None:
    run.export(tmp_path / "model.safetensors")
    began = [
        partrain.train(CONFIG, data=TRAIN, workers=0, quiet=True, init_from=source, strict=True).summary
        for source in (run, str(run.path), tmp_path / "model.safetensors")
    ]
    assert len({summary["parameters_sha256"] for summary in began}) == 1
    with pytest.raises(RunError, match="no parameter fits"):
        partrain.train(CONFIG | {"network": ["flatten", {"dense": {"units": 11}}]}, data=TRAIN, init_from=run)
    with pytest.raises(ConfigError, match="init_from: is a int"):
        partrain.train(CONFIG, data=TRAIN, init_from=3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="strict goes with init_from"):
        partrain.train(CONFIG, data=TRAIN, strict=True)
