"""Optimizers and schedules with workers, after a kill in the middle of an epoch, and verified: the same bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from partrain.store.checkpoint import load
from tests.program import Result
from tests.whole_runs import IN_MID_EPOCH, Runs, outcome, write_config

RECIPES: dict[str, dict[str, Any]] = {
    "SGD": {"training.optimizer": {"name": "sgd", "lr": 0.05, "weight_decay": 0.01, "weight_decay_exclude": ["bias"]}},
    "SGD with momentum": {"training.optimizer": {"name": "sgd", "lr": 0.02, "momentum": 0.9, "nesterov": True}},
    "Muon": {"training.optimizer": {"name": "muon", "weight_decay": 0.1, "weight_decay_exclude": ["bias"]}},
    "AdamW": {"training.optimizer": {"name": "adamw", "weight_decay": 0.1, "weight_decay_exclude": ["bias"]}},
}
RECIPES |= {
    "one cycle": {"training.optimizer": {"lr": 0.02}, "training.schedule": {"name": "one_cycle"}},
    "linear": {"training.schedule": {"name": "linear", "warmup_steps": 3, "final_lr": 0.001}},
    "warm restarts": {"training.schedule": {"name": "warm_restarts", "period_steps": 6, "period_factor": 2}},
    "plateau": {
        "training.optimizer": {"lr": 0.05},
        "training.schedule": {"name": "plateau", "patience": 0, "threshold": 0.9, "factor": 0.5, "cooldown": 1},
        "logging": {"every_steps": 3, "evaluate_every_steps": 4},
    },
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
