from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from partrain.analysis import evaluation
from partrain.analysis.plots import run_plots
from partrain.parallel import memory_plan, split_evaluation
from partrain.parallel.workers import compute_group
from partrain.store import checkpoint
from partrain.store.checkpoint import Checkpoint
from partrain.store.checkpoint_directory import CheckpointDirectory
from partrain.store.run_directory import RunDirectory
from tests.noise_data import noise_examples, write_idx
from tests.processes import wait_until
from tests.program import ROOT, PartrainProcess, Result
from tests.small_run import ENDLESS, train_small
from tests.whole_runs import read_json

Call = Callable[..., Result]


@pytest.fixture(autouse=True)
def _no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots have their own tests, and drawing them takes seconds."""
    monkeypatch.setattr(run_plots, "write_plots", lambda *given: None)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A completed run of two epochs; tests copy its directory."""
    return train_small(tmp_path_factory.mktemp("trained"), {"training.epochs": 2})


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run for one test."""
    path = tmp_path / "run"
    shutil.copytree(trained, path)
    return path


def refuse(result: Result) -> str:
    assert (result.exit_code, result.stdout) == (2, ""), result
    assert "Traceback" not in result.stderr
    assert result.stderr.count("error: ") == 1
    return result.stderr[result.stderr.index("error: ") :]


def test_evaluation_has_every_field_and_agrees_with_the_summary(call_partrain: Call, run: Path) -> None:
    result = call_partrain("evaluate", run, "--workers", 0, "--json", "-q")
    assert (result.exit_code, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert read_json(run / "evaluation-test.json") == {"format": 1} | report
    assert set(report) == {
        "split",
        "data_digest",
        "checkpoint",
        "step",
        "num_examples",
        "accuracy",
        "loss",
        "classes",
        "support",
        "recall",
        "precision",
        "confusion",
        "least_certain",
        "most_confidently_wrong",
        "labels",
        "predictions",
    }
    summary = read_json(run / "summary.json")
    assert {name: report[name] for name in ("loss", "accuracy")} == summary["test"]
    assert (report["split"], report["step"], report["checkpoint"]) == ("test", 20, "step-00000020.safetensors")
    assert report["classes"] == list("0123456789")
    assert np.sum(report["confusion"]) == report["num_examples"] == len(report["labels"]) == 240
    assert report["data_digest"] == read_json(run / "run.json")["data"]["digest"]


def test_evaluation_is_the_same_bytes_with_any_number_of_workers(call_partrain: Call, run: Path) -> None:
    path = run / "evaluation-validation.json"
    contents = set()
    for workers in (0, 1, 2):
        result = call_partrain("evaluate", run, "--split", "validation", "--workers", workers, "-q")
        assert (result.exit_code, result.stderr) == (0, "")
        contents.add(path.read_bytes())
        path.unlink()
    assert len(contents) == 1


def test_validation_figures_are_those_of_the_training(call_partrain: Call, run: Path) -> None:
    best = read_json(run / "summary.json")["best"]
    arguments = ("--split", "validation", "--checkpoint", "best", "--workers", 0, "--json", "-q")
    report = json.loads(call_partrain("evaluate", run, *arguments).stdout)
    assert report["step"] == best["step"]
    assert report["accuracy"] == best["validation/accuracy"]
    assert report["loss"] == best["validation/loss"]


def test_table_goes_to_stdout_and_messages_to_stderr(call_partrain: Call, run: Path) -> None:
    result = call_partrain("evaluate", run, "--workers", 0)
    assert result.exit_code == 0
    assert result.stdout.startswith("240 examples: accuracy ")
    assert "precision" in result.stdout
    assert f"{run}: evaluating step 20 (step-00000020.safetensors) on 240 test examples" in result.stderr


def test_checkpoint_is_chosen_by_name_and_by_path(call_partrain: Call, run: Path, tmp_path: Path) -> None:
    shutil.copy(run / "checkpoints/step-00000010.safetensors", tmp_path / "elsewhere.safetensors")
    for which in ("step-00000010.safetensors", tmp_path / "elsewhere.safetensors"):
        result = call_partrain("evaluate", run, "--checkpoint", which, "--workers", 0, "--json", "-q")
        assert json.loads(result.stdout)["step"] == 10


def test_damaged_newest_checkpoint_is_skipped_with_a_warning(call_partrain: Call, run: Path) -> None:
    path = run / "checkpoints/step-00000020.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    result = call_partrain("evaluate", run, "--workers", 0, "--json", "-q")
    assert json.loads(result.stdout)["step"] == 10
    assert f"warning: {path}: is truncated or altered" in result.stderr
    assert str(path) in refuse(call_partrain("evaluate", run, "--checkpoint", path.name))


def test_network_with_more_outputs_than_classes_is_evaluated(
    call_partrain: Call, small_config: Callable[..., Path], tmp_path: Path
) -> None:
    config = small_config({"network": ["flatten", {"dense": {"units": 12}}]})
    assert call_partrain("--config", config, "--workers", 0, "-q", "--run-dir", tmp_path / "wide").exit_code == 0
    report = json.loads(call_partrain("evaluate", tmp_path / "wide", "--workers", 0, "--json", "-q").stdout)
    assert report["classes"] == [str(k) for k in range(12)]
    assert report["recall"][11] is None
    assert report["support"][11] == 0


def test_evaluation_does_not_disturb_a_training_in_progress(
    start_partrain: Callable[..., PartrainProcess], call_partrain: Call, small_config: Callable[..., Path]
) -> None:
    training = start_partrain("--config", small_config(ENDLESS | {"checkpoints.every_steps": 1}), "--workers", 1)
    run = training.wait_for_training()
    wait_until(lambda: list((run / "checkpoints").glob("*.safetensors")), "a checkpoint")  # saved after the metrics
    result = call_partrain("evaluate", run, "--workers", 0, "--json", "-q")
    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout)["step"] > 0
    assert RunDirectory.open(run).status() == "running"
    training.send(signal.SIGTERM)
    assert training.wait().exit_code == 143


def test_run_that_cannot_be_written_is_still_evaluated(
    call_partrain: Call, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*args: object, **options: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "replace", read_only)
    result = call_partrain("evaluate", run, "--workers", 0, "--json", "-q")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["num_examples"] == 240
    assert f"warning: {run / 'evaluation-test.json'}: cannot be written: Read-only file system" in result.stderr


def test_long_evaluation_reports_progress(call_partrain: Call, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr(evaluation, "COMMANDS_PER_CHECK", 1)
    monkeypatch.setattr(split_evaluation, "TILES_PER_COMMAND", 30)
    result = call_partrain("evaluate", run, "--workers", 0)
    assert [line for line in result.stderr.splitlines() if line.endswith("of 240 examples")] == [
        "90 of 240 examples",
        "180 of 240 examples",
    ]


def test_signal_ends_an_evaluation(call_partrain: Call, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class SignallingGroup(compute_group.InProcessGroup):
        def run(self, commands: Any) -> None:
            super().run(commands)
            signal.raise_signal(signal.SIGINT)

    (run / "evaluation-test.json").unlink()
    monkeypatch.setattr(compute_group, "InProcessGroup", SignallingGroup)
    result = call_partrain("evaluate", run, "--workers", 0)
    assert (result.exit_code, result.stdout) == (130, "")
    assert not (run / "evaluation-test.json").exists()


@pytest.mark.slow
def test_reader_that_closes_the_pipe_early_is_not_an_error(run: Path) -> None:
    program = (
        "import sys; sys.stdin.read(); from partrain.interface.command_line import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "evaluate", str(run), "--workers", "0", "--json", "-q"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    process.stdout.close()  # before anything is written
    process.stdout = None
    _, said = process.communicate("", timeout=120)
    assert process.returncode == 0
    assert "Traceback" not in said
    assert "BrokenPipe" not in said


# ---- what cannot be evaluated


def test_run_that_does_not_exist_names_the_nearest(
    call_partrain: Call, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, tmp_path / "runs/20260101-000000-mnist")
    message = refuse(call_partrain("evaluate", "20260101-00000-mnist"))
    assert "did you mean runs/20260101-000000-mnist?" in message


def test_run_without_a_checkpoint(call_partrain: Call, run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    assert "has no checkpoint" in refuse(call_partrain("evaluate", run))
    assert "has no checkpoint" in refuse(call_partrain("evaluate", run, "--checkpoint", "best"))
    message = refuse(call_partrain("evaluate", run, "--checkpoint", "step-1.safetensors"))
    assert "--checkpoint step-1.safetensors: there is no such file" in message


def test_run_of_which_no_checkpoint_is_good(call_partrain: Call, run: Path) -> None:
    for path in (run / "checkpoints").iterdir():
        path.write_bytes(b"")
    assert "all of its checkpoints are damaged" in call_partrain("evaluate", run).stderr


def test_best_checkpoint_of_a_run_without_one(
    call_partrain: Call, small_config: Callable[..., Path], tmp_path: Path
) -> None:
    config = small_config({"data.validation_examples": 0})
    assert call_partrain("--config", config, "--workers", 0, "-q", "--run-dir", tmp_path / "plain").exit_code == 0
    assert "it was never validated" in refuse(call_partrain("evaluate", tmp_path / "plain", "--checkpoint", "best"))
    message = refuse(call_partrain("evaluate", tmp_path / "plain", "--split", "validation", "-q"))
    assert "no validation examples" in message


def test_best_checkpoint_that_was_not_kept(call_partrain: Call, run: Path) -> None:
    state = checkpoint.load(run / "checkpoints/step-00000020.safetensors")
    state.metadata["best"]["step"] = 7
    CheckpointDirectory(run / "checkpoints").save(state)
    message = refuse(call_partrain("evaluate", run, "--checkpoint", "best"))
    assert "the best checkpoint, of step 7, was not kept" in message


def rewrite(run: Path, change: Callable[[Checkpoint], object]) -> None:
    """Change the newest checkpoint, with a digest that is right."""
    state = checkpoint.load(run / "checkpoints/step-00000020.safetensors")
    change(state)
    CheckpointDirectory(run / "checkpoints").save(state)


@pytest.mark.parametrize(
    ("change", "fragment"),
    [
        (lambda s: s.tensors.pop("conv1.bias"), "conv1.bias is missing"),
        (lambda s: s.tensors.update({"conv1.bias": np.zeros(3)}), "conv1.bias is float64[3], not float32[2]"),
        (lambda s: s.tensors.update({"conv1.bias": np.zeros(2, int)}), "conv1.bias is int64[2], not float32[2]"),
        (lambda s: s.tensors.update(other=np.zeros(2)), "other is not a parameter of the network"),
        (lambda s: s.metadata.pop("normalisation"), "normalisation: Field required"),
        (lambda s: s.metadata.update(normalisation={"mean": [0], "std": [0]}), "normalisation.std.0: "),
        (lambda s: s.metadata.update(normalisation={"mean": [0, 1], "std": [1, 1]}), "images with 1 channels"),
        (lambda s: s.metadata.update(class_names=[]), "class_names: "),
        (lambda s: s.metadata.update(class_names=["x"] * 11), "10 outputs are too few"),
        (lambda s: s.metadata.update(image_shape=[1, 4, 4]), "does not fit the configuration"),
        (lambda s: s.metadata.update(image_shape=[1, 33, 33]), "dense1.weight is float32[10, 72], not float32[10, 98]"),
        (lambda s: s.metadata.update(image_dtype="complex64"), "image_dtype: "),
    ],
)
def test_checkpoint_that_does_not_fit(
    call_partrain: Call, run: Path, change: Callable[[Checkpoint], object], fragment: str
) -> None:
    rewrite(run, change)
    message = refuse(call_partrain("evaluate", run, "--workers", 0, "-q"))
    assert "step-00000020.safetensors" in message
    assert fragment in message


def test_configuration_whose_network_was_changed(call_partrain: Call, run: Path) -> None:
    mapping = yaml.safe_load((run / "config.yaml").read_text())
    mapping["network"][2]["max_pool"]["stride"] = 5
    (run / "config.yaml").write_text(yaml.safe_dump(mapping))
    assert "its network was changed after the start of the run" in refuse(call_partrain("evaluate", run))


def test_checkpoint_that_does_not_describe_the_images_of_a_named_data_set(call_partrain: Call, run: Path) -> None:
    rewrite(run, lambda state: [state.metadata.pop(key) for key in ("image_shape", "image_dtype", "data_digest")])
    assert call_partrain("evaluate", run, "--workers", 0, "-q").exit_code == 0


@pytest.fixture
def run_on_files(call_partrain: Call, noise_folder: Path, small_config: Callable[..., Path], tmp_path: Path) -> Path:
    config = small_config({"data": {"name": "idx", "path": str(noise_folder)}})
    return call_partrain("--config", config, "--workers", 0, "-q", "--run-dir", tmp_path / "on-files").run


def test_data_that_changed_is_evaluated_with_a_warning(
    call_partrain: Call, run_on_files: Path, noise_folder: Path
) -> None:
    write_idx(noise_folder / "t10k-labels-idx1-ubyte", noise_examples(20, seed=2)[1])
    result = call_partrain("evaluate", run_on_files, "--workers", 0, "--json", "-q")
    assert result.exit_code == 0
    assert "warning: the data changed after the training" in result.stderr
    assert json.loads(result.stdout)["data_digest"] != read_json(run_on_files / "run.json")["data"]["digest"]


def test_data_that_does_not_fit_the_network(call_partrain: Call, run_on_files: Path, noise_folder: Path) -> None:
    write_idx(noise_folder / "t10k-labels-idx1-ubyte", np.full(20, 10, np.uint8))
    assert "has 11 classes, but the network has 10 outputs" in refuse(call_partrain("evaluate", run_on_files, "-q"))
    for prefix, n in (("train", 60), ("t10k", 20)):
        write_idx(noise_folder / f"{prefix}-images-idx3-ubyte", noise_examples(n, size=14)[0])
    message = refuse(call_partrain("evaluate", run_on_files, "-q"))
    assert "its images are uint8[1, 14, 14], but the run was trained on uint8[1, 28, 28]" in message


def test_data_that_is_gone(call_partrain: Call, run_on_files: Path, noise_folder: Path) -> None:
    shutil.rmtree(noise_folder)
    assert str(noise_folder) in refuse(call_partrain("evaluate", run_on_files, "-q"))


def test_too_little_memory(call_partrain: Call, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_plan, "available_memory", lambda: 2**20)
    assert "the evaluation needs about" in refuse(call_partrain("evaluate", run, "-q"))
