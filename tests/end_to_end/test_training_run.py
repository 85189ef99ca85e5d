from __future__ import annotations

import hashlib
import json
import math
import re
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import partrain
from partrain.config.reader import read_config
from partrain.parallel import compute_resources
from partrain.parallel.workers.fork_server import fork_server_pid
from partrain.store import checkpoint
from partrain.store.checkpoint_directory import CheckpointDirectory
from tests.program import Result
from tests.whole_runs import read_json, rows_of, saved_steps

Train = Callable[..., Path]


@pytest.fixture
def train(call_partrain: Callable[..., Result], small_config: Callable[..., Path], tmp_path: Path) -> Train:
    """Train the small configuration with changes by dotted key; return the run's directory."""

    def call(changes: dict[str, Any] | None = None, *, workers: int = 0) -> Path:
        where = ("--runs-dir", tmp_path / "runs")
        return call_partrain("--config", small_config(changes), "--workers", workers, *where).run

    return call


def test_fork_server_that_started_before_kernels_were_compiled_is_replaced(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(workers=1)
    before = fork_server_pid()
    train(workers=1)
    assert fork_server_pid() == before
    load = compute_resources.load
    monkeypatch.setattr(compute_resources, "load", lambda *args, **options: load(*args, **options) or True)
    train(workers=1)
    assert fork_server_pid() != before


# A training in which the coordinator calls every kernel that it may call; a call of one that is not loaded is an error.
WITH_PARTS_OF_THE_KERNELS = """
import sys
from partrain.interface.command_line import main
from partrain.kernels import convolution, dense, planned_update, update
from partrain.kernels.compiler.cache import is_loaded
from partrain.kernels.compiler.flags import Kernel
class Unproven(Kernel):
    def __call__(self, *arguments):
        return update.UNPROVEN
if sys.argv.pop(1) == "plainly":
    update.update_parameters.__class__ = Unproven
assert main() == 0
assert is_loaded(update.begin_update, "float32")
for kernel in (convolution.conv2d_forward, dense.dense_forward, planned_update.update_pieces_ahead):
    assert not is_loaded(kernel, "float32"), "it has loaded a kernel that only workers call"
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", ["in pieces", "plainly"])
def test_coordinator_of_workers_loads_the_kernels_that_it_calls(
    run_partrain: Callable[..., Result], small_config: Callable[..., Path], train: Train, way: str
) -> None:
    config = small_config({"training.per_example": {"statistics": True}, "logging": {"every_steps": 2}})
    train(workers=1)  # by now the cache has all kernels
    program = [sys.executable, "-c", WITH_PARTS_OF_THE_KERNELS, way]
    assert run_partrain("--config", config, "--workers", 1, program=program).exit_code == 0


def test_directory_of_a_completed_run_holds_these_files(train: Train) -> None:
    run = train(workers=2)
    assert {path.name for path in run.iterdir()} - {"run.lock"} == {
        "config.yaml",
        "run.json",
        "metrics.jsonl",
        "summary.json",
        "evaluation-test.json",
        "train.log",
        "checkpoints",
    }
    assert re.fullmatch(r"\d{8}-\d{6}-small", run.name)


def test_record_says_what_ran_where_and_how_it_ended(train: Train) -> None:
    run = train({"seed": 3}, workers=2)
    record = read_json(run / "run.json")
    assert record["format"] == 1
    assert record["status"] == "completed"
    (command_line,) = record["command_lines"]
    assert command_line[:3] == ["partrain", "train", "--config"]
    assert record["workers"] == 2
    assert datetime.fromisoformat(record["started"]) <= datetime.fromisoformat(record["ended"])
    assert datetime.fromisoformat(record["started"]).utcoffset() is not None
    assert record["data"]["name"] == record["data"]["source"] == "synthetic-digits"
    assert re.fullmatch("[0-9a-f]{64}", record["data"]["digest"])
    assert record["data"]["class_names"] == list("0123456789")
    assert set(record["data"]["normalisation"]) == {"mean", "std"}
    assert record["identity"] == read_config(run / "config.yaml").identity()
    assert record["lineage"] == []
    assert record["versions"]["partrain"] == partrain.__version__
    assert {"python", "numpy", "numba", "safetensors"} <= set(record["versions"])
    assert {"machine", "name", "features"} <= set(record["processor"])
    assert record["host"]
    assert "git_commit" in record


def test_summary_has_every_field(train: Train) -> None:
    summary = read_json(train({"training.epochs": 2}, workers=2) / "summary.json")
    assert set(summary) - {"format"} == {
        "steps",
        "epochs",
        "examples",
        "train_seconds",
        "startup_seconds",
        "evaluation_seconds",
        "checkpoint_seconds",
        "total_seconds",
        "examples_per_second",
        "workers",
        "peak_memory_bytes",
        "final",
        "best",
        "test",
        "stopped_early",
        "parameters_sha256",
    }
    assert (summary["steps"], summary["epochs"], summary["examples"], summary["workers"]) == (20, 2, 400, 2)
    parts = ("train_seconds", "startup_seconds", "evaluation_seconds", "checkpoint_seconds")
    assert all(summary[name] > 0 for name in parts)
    assert sum(summary[name] for name in parts) == pytest.approx(summary["total_seconds"], abs=0.01)
    assert summary["examples_per_second"] > 0
    assert summary["peak_memory_bytes"] > 2**24
    assert set(summary["test"]) == {"loss", "accuracy"}
    assert summary["best"]["step"] in (10, 20)
    assert {"train/loss", "train/accuracy", "lr", "validation/loss", "validation/accuracy"} <= set(summary["final"])
    assert re.fullmatch("[0-9a-f]{64}", summary["parameters_sha256"])


def test_metrics_have_a_line_for_each_logged_step_and_each_evaluation(train: Train) -> None:
    run = train({"training.epochs": 2, "logging": {"every_steps": 4}, "training.batch_size": 30})
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    logged = [row for row in rows if "train/loss" in row]
    evaluated = [row for row in rows if "validation/loss" in row]
    assert [row["step"] for row in logged] == [4, 8, 12, 14]
    assert [row["examples"] for row in logged] == [120, 230, 350, 400]  # the last batch of an epoch has 20
    assert [row["step"] for row in evaluated] == [7, 14]
    assert [row["epoch"] for row in evaluated] == [1, 2]
    for row in logged:
        assert set(row) == {
            "step",
            "epoch",
            "examples",
            "time_s",
            "train/loss",
            "train/accuracy",
            "lr",
            "examples_per_s",
        }
        assert math.isfinite(row["train/loss"])
        assert 0 <= row["train/accuracy"] <= 1
    assert [row["time_s"] for row in rows] == sorted(row["time_s"] for row in rows)


def test_evaluations_come_as_often_as_they_are_asked_for(train: Train) -> None:
    changes: dict[str, Any] = {"logging": {"evaluate_every_steps": 4, "evaluate_every_epochs": None}}
    rows = rows_of(train({"training.epochs": 2, **changes}))
    assert [row["step"] for row in rows if "validation/loss" in row] == [4, 8, 12, 16, 20]


def test_best_is_the_highest_accuracy_and_of_equals_the_earliest(train: Train) -> None:
    run = train({"training.epochs": 6, "data.validation_examples": 5})
    evaluated = [row for row in rows_of(run) if "validation/accuracy" in row]
    accuracies = [row["validation/accuracy"] for row in evaluated]
    best = read_json(run / "summary.json")["best"]
    assert best["step"] == evaluated[accuracies.index(max(accuracies))]["step"]
    assert best["validation/accuracy"] == max(accuracies)


@pytest.mark.parametrize(("keep_last", "keep_best"), [(1, False), (2, True), (3, False)])
def test_checkpoints_that_are_kept_are_the_last_and_the_best(train: Train, keep_last: int, keep_best: bool) -> None:
    kept = {"every_steps": 4, "keep_last": keep_last, "keep_best": keep_best}
    run = train({"training.epochs": 5, "checkpoints": kept, "training.optimizer.lr": 0.03})
    saved = sorted({*range(4, 51, 4), *range(10, 51, 10)})
    expected = set(saved[-keep_last:])
    if keep_best:
        expected.add(read_json(run / "summary.json")["best"]["step"])
    assert set(saved_steps(run)) == expected


def test_run_without_validation_has_no_best(train: Train) -> None:
    run = train({"data.validation_examples": 0})
    assert read_json(run / "summary.json")["best"] is None
    assert not [row for row in rows_of(run) if "validation/loss" in row]
    assert saved_steps(run) == [10]


def test_last_checkpoint_holds_the_parameters_of_the_summary(train: Train) -> None:
    run = train()
    saved = checkpoint.load(CheckpointDirectory(run / "checkpoints").path_of(10))
    assert {name: tensor.shape for name, tensor in saved.tensors.items() if "adam" not in name} == {
        "conv1.weight": (2, 1, 5, 5),
        "conv1.bias": (2,),
        "dense1.weight": (10, 72),
        "dense1.bias": (10,),
    }
    in_order = [saved.tensors[k] for k in ("conv1.weight", "conv1.bias", "dense1.weight", "dense1.bias")]
    digest = hashlib.sha256(b"".join(tensor.astype("<f4").tobytes() for tensor in in_order)).hexdigest()
    assert read_json(run / "summary.json")["parameters_sha256"] == digest
    for name in ("conv1.weight", "dense1.bias"):
        for moment in ("first", "second"):
            assert saved.tensors[f"adam.{moment}_moment.{name}"].any()
    assert saved.metadata["data_digest"] == read_json(run / "run.json")["data"]["digest"]
    assert saved.metadata["config_digest"] == read_config(run / "config.yaml").identity_digest()
    assert saved.metadata["epoch"] == 1


def test_resolved_configuration_is_kept_in_the_run(train: Train) -> None:
    content = yaml.safe_load((train({"training.epochs": 3}) / "config.yaml").read_text())
    assert content["data"]["name"] == "synthetic-digits"
    assert content["data"]["when_unavailable"] == "error"
    assert content["training"]["schedule"]["decay_steps"] == 30


def test_log_holds_what_was_said_and_how_many_tiles_each_worker_computed(train: Train) -> None:
    series_of_two_steps = {"checkpoints.every_steps": 2}  # so that each worker takes part in some
    log = (train(series_of_two_steps, workers=3) / "train.log").read_text()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ", line) for line in log.splitlines())
    assert "drawing 480 synthetic digits" in log
    assert "step 10/10" in log
    assert "test accuracy" in log
    tiles = [int(number) for number in re.findall(r"worker \d computed (\d+) tiles", log)]
    assert len(tiles) == 3
    assert sum(tiles) == 10 * 7
    assert min(tiles) > 0


def test_more_workers_than_tiles_are_not_started(
    call_partrain: Callable[..., Result], small_config: Callable[..., Path], tmp_path: Path
) -> None:
    config = small_config({"training.tile": 8})
    result = call_partrain("--config", config, "--workers", 40, "--runs-dir", tmp_path / "runs", "-q")
    assert result.stderr.count("warning: ") == 1
    assert "a batch has 3 tiles" in result.stderr
    assert "3 workers are started, not 40" in result.stderr
    assert read_json(result.run / "summary.json")["workers"] == 3
    assert read_json(result.run / "run.json")["workers"] == 3
    tiles = re.findall(r"worker \d computed (\d+) tiles", (result.run / "train.log").read_text())
    assert len(tiles) == 3
    assert sum(int(number) for number in tiles) == 10 * 3


@pytest.mark.parametrize(
    "network",
    [
        ["flatten", {"dense": {"units": 10}}],
        [{"conv": {"filters": 10, "kernel": 28}}, "flatten"],
        [{"max_pool": {"window": 4}}, "flatten", {"dense": {"units": 8}}, "relu", {"dense": {"units": 12}}],
    ],
    ids=["dense layers alone", "convolutions alone", "more outputs than classes"],
)
def test_network_of_any_composition_trains_to_the_same_bits(train: Train, network: list[Any]) -> None:
    made = [read_json(train({"network": network}, workers=n) / "summary.json") for n in (0, 3)]
    assert made[0]["parameters_sha256"] == made[1]["parameters_sha256"]


def test_training_learns(train: Train) -> None:
    run = train({"training.epochs": 20, "data.train_examples": 500})
    losses = [row["train/loss"] for row in rows_of(run) if "train/loss" in row]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:3])
    assert read_json(run / "summary.json")["test"]["accuracy"] > 0.4
