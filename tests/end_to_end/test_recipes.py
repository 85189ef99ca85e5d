"""Optimizers, schedules and networks, with workers, after a kill in mid-epoch, and verified: the same bits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from partrain.store.checkpoint import load
from tests.program import Result
from tests.whole_runs import IN_MID_EPOCH, Runs, outcome, read_json, rows_of, write_config


def branches(norm: Any) -> dict[str, Any]:
    """Return changes to a network with branches and normalisations."""
    inner = {"residual": {"body": ["gelu", {"residual": {"body": ["silu", {"dropout": {"rate": 0.1}}]}}]}}
    return {
        "network": [
            {"conv": {"filters": 4, "kernel": 5, "stride": 3}},
            norm,
            "relu",
            {"residual": {"body": [{"conv": {"filters": 4, "kernel": 3, "padding": 1}}, norm, inner]}},
            {"residual": {"body": [{"avg_pool": {"window": 2}}], "shortcut": [{"max_pool": {"window": 2}}]}},
            "flatten",
            {"dense": {"units": 10}},
        ]
    }


GROUP_NORM, BATCH_NORM = branches({"group_norm": {"groups": 2}}), branches("batch_norm")
# A tile of batch_norm has at least two examples, and such a network has no gradients of single ones.
BATCH_NORM |= {"training.per_example": {"statistics": False}}

RECIPES: dict[str, dict[str, Any]] = {
    "SGD": {
        "training.optimizer": {"name": "sgd", "lr": 0.05, "weight_decay": 0.01, "weight_decay_exclude": ["bias"]},
        "training.schedule": {"name": "linear", "warmup_steps": 3, "final_lr": 0.001},
    },
    "SGD with momentum": {
        "training.optimizer": {"name": "sgd", "lr": 0.02, "momentum": 0.9, "nesterov": True},
        "training.schedule": {"name": "warm_restarts", "period_steps": 6, "period_factor": 2},
        "training.freeze": ["dense1"],
    },
    "Muon": {
        "training.optimizer": {"name": "muon", "weight_decay": 0.1, "weight_decay_exclude": ["bias"]},
        "training.mixup": {"alpha": 0.3},
    }
    | BATCH_NORM,
    "AdamW": {"training.optimizer": {"name": "adamw", "weight_decay": 0.1, "weight_decay_exclude": ["bias"]}}
    | GROUP_NORM,
    "one cycle": {"training.optimizer": {"lr": 0.02}, "training.schedule": {"name": "one_cycle"}},
    "plateau": {
        "training.optimizer": {"lr": 0.05},
        "training.schedule": {"name": "plateau", "patience": 0, "threshold": 0.9, "factor": 0.5, "cooldown": 1},
        "logging": {"every_steps": 3, "evaluate_every_steps": 4},
    },
    "averaged weights": {"training.ema": {"decay": 0.8}, "training.optimizer": {"lr": 0.02, "weight_decay": 0.1}},
    "averaged weights after a warm-up, a frozen convolution": {
        "training.ema": {"decay": 0.9, "warmup": True},
        "training.freeze": ["conv1"],
        "training.optimizer": {"lr": 0.01, "weight_decay": 0.1},
    },
    "frozen normalisations": {
        "training.freeze": ["conv1", "batch_norm1", "batch_norm2"],
        "training.optimizer": {"lr": 0.01, "weight_decay": 0.1},
    }
    | BATCH_NORM,
}
EACH_RECIPE = pytest.mark.parametrize("changes", RECIPES.values(), ids=RECIPES)


@EACH_RECIPE
def test_recipe_has_the_same_bits_with_workers_and_after_a_kill(
    call_partrain: Callable[..., Result], runs: Runs, changes: dict[str, Any]
) -> None:
    expected = outcome(runs.train(changes))
    killed = runs.train(changes, name="killed", kill_at=IN_MID_EPOCH)
    assert call_partrain("resume", killed, "--workers", 3).exit_code == 0
    assert outcome(killed) == expected
    together = runs.folder / "runs" / "together"
    config = write_config(runs.folder, changes)
    assert call_partrain("--config", config, "--workers", 2, "--run-dir", together).exit_code == 0
    assert outcome(together) == expected
    assert "same bits" in call_partrain("verify", killed, "--all", "--workers", 0).stdout


@pytest.mark.parametrize(
    ("recipe", "prefixes"),
    [
        ("SGD", set()),
        ("SGD with momentum", {"momentum"}),
        ("AdamW", {"adam.first_moment", "adam.second_moment"}),
        ("Muon", {"adam.first_moment", "adam.second_moment", "momentum"}),
    ],
)
def test_checkpoint_has_the_moments_that_the_optimizer_needs(runs: Runs, recipe: str, prefixes: set[str]) -> None:
    run = runs.train(RECIPES[recipe])
    names = load(max((run / "checkpoints").iterdir())).tensors
    assert {name.rpartition(".")[0].rpartition(".")[0] for name in names} - {""} == prefixes
    if recipe == "Muon":
        assert {"momentum.conv1.weight", "adam.first_moment.dense1.weight"} <= names.keys()
        assert "adam.first_moment.conv1.weight" not in names


def test_averaged_weights_are_evaluated_exported_and_used_for_predictions(
    call_partrain: Callable[..., Result], runs: Runs
) -> None:
    run = runs.train(RECIPES["averaged weights"])
    tensors = load(max((run / "checkpoints").iterdir())).tensors
    summary, row = read_json(run / "summary.json"), rows_of(run)[-1]
    assert {"validation/ema_accuracy", "validation/ema_loss"} <= row.keys()
    reports = {
        weights: json.loads(call_partrain("evaluate", run, "--weights", weights, "--json", "--workers", 0).stdout)
        for weights in ("raw", "ema")
    }
    assert reports["ema"]["weights"] == "ema"
    assert reports["raw"]["loss"] != reports["ema"]["loss"]
    for prefix, report in (("", reports["raw"]), ("ema_", reports["ema"])):
        assert {name: summary["test"][prefix + name] for name in ("loss", "accuracy")} == {
            name: report[name] for name in ("loss", "accuracy")
        }
    assert (run / "evaluation-test-ema.json").is_file()
    file = runs.folder / "averaged.npz"
    assert call_partrain("export", run, "--to", file, "--weights", "ema").exit_code == 0
    exported = np.load(file)
    for name in ("conv1.weight", "dense1.bias"):
        assert np.array_equal(exported[name], tensors[f"ema.{name}"])
        assert not np.array_equal(exported[name], tensors[name])
    probabilities = [
        json.loads(call_partrain("predict", run, "--index", 0, "--weights", weights, "--json").stdout)[0]["probability"]
        for weights in ("raw", "ema")
    ]
    assert probabilities[0] != probabilities[1]


def test_run_without_averaged_weights_says_so(call_partrain: Callable[..., Result], undisturbed: Path) -> None:
    result = call_partrain("export", undisturbed, "--to", "x.npz", "--weights", "ema")
    assert "has no averaged weights, because the run was trained without training.ema" in result.refusal


@pytest.mark.parametrize("layer", ["conv1", "dense1"])
@pytest.mark.parametrize("workers", [0, 2])
def test_nothing_of_a_frozen_layer_changes(
    call_partrain: Callable[..., Result], small_config: Callable[..., Path], tmp_path: Path, layer: str, workers: int
) -> None:
    run = tmp_path / "run"
    changes = {"training.freeze": [layer], "training.optimizer": {"lr": 0.01, "weight_decay": 0.1}}
    config = small_config(changes | {"checkpoints": {"every_steps": 1, "keep_last": 100}})
    assert call_partrain("--config", config, "--workers", workers, "--run-dir", run).exit_code == 0
    first, *_, last = (load(path).tensors for path in sorted((run / "checkpoints").iterdir()))
    for name in ("conv1.weight", "conv1.bias", "dense1.weight", "dense1.bias"):
        assert np.array_equal(first[name], last[name]) == name.startswith(layer), name
    assert not any(name.startswith("adam") and layer in name for name in last)


def test_layer_to_freeze_that_does_not_exist_is_refused(
    call_partrain: Callable[..., Result], small_config: Callable[..., Path]
) -> None:
    result = call_partrain("--config", small_config({"training.freeze": ["conv2", "relu1"]}), "--dry-run")
    assert result.exit_code == 2
    assert "training.freeze: there is no layer conv2; did you mean conv1?" in result.stderr
    assert "training.freeze: relu1 has no parameters" in result.stderr
