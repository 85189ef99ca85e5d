"""When a training ends before its last step."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from partrain.config.schema.training import StopEarly
from partrain.store import checkpoint
from partrain.store.checkpoint_directory import CheckpointDirectory
from partrain.training.early_stopping import EarlyStopping
from tests.whole_runs import Runs, outcome, read_json, rows_of, write_config


def stops_after(values: list[float], **settings: Any) -> int | None:
    """Return the number of evaluations after which a training with these values stops, going through JSON each time."""
    metric = settings.get("metric", "validation/loss")
    stopping = EarlyStopping(StopEarly(**settings))
    for count, value in enumerate(values, start=1):
        stopping.observe(10 * count, {metric: value, "another": 0.0})
        stopping = EarlyStopping(StopEarly(**settings), json.loads(json.dumps(stopping.state, allow_nan=False)))
        if stopping.reason is not None:
            return count
    return None


@pytest.mark.parametrize(
    ("values", "settings", "expected"),
    [
        ([3, 2, 1, 0.5, 0.25], {"patience": 1}, None),
        ([3, 2, 2], {"patience": 1}, 3),
        ([3, 2, 4, 5, 6], {}, 5),
        ([3, 2, 4, 5, 1, 4, 5, 6], {}, 8),
        ([3, 2.95, 2.85, 2.84], {"patience": 1, "min_delta": 0.1}, 2),
        ([3, 2.95, 2.85, 2.84, 2.83], {"patience": 2, "min_delta": 0.1}, 5),
        ([0.5, 0.6, 0.6], {"metric": "validation/accuracy", "patience": 1}, 3),
        ([0.5, 0.4, 0.3, 0.6, 0.5], {"metric": "validation/accuracy", "patience": 3}, None),
        ([math.nan, math.inf], {"patience": 2}, 2),
        ([math.nan, 3, math.nan, 2, math.inf, math.nan], {"patience": 2}, 6),
    ],
)
def test_training_stops_after_evaluations_in_a_row_without_improvement(
    values: list[float], settings: dict[str, Any], expected: int | None
) -> None:
    assert stops_after(values, **settings) == expected


def test_reason_says_what_did_not_improve_since_when() -> None:
    stopping = EarlyStopping(StopEarly(patience=2))
    for step, value in ((1000, 0.5), (2000, 0.75), (3000, 0.5)):
        assert stopping.reason is None
        stopping.observe(step, {"validation/loss": value})
    assert stopping.reason == "validation/loss did not improve in 2 evaluations; its best value, 0.5, was at step 1,000"
    never = EarlyStopping(StopEarly(patience=1, metric="validation/accuracy"))
    never.observe(5, {"validation/accuracy": math.nan})
    assert never.reason == "validation/accuracy did not improve in 1 evaluation; it was never finite"


# ---- whole runs: evaluations at steps 7, 10 and 14 of 30, of which the first stays the best

CHANGES = {"training.epochs": 3, "training.stop_early": {"patience": 2, "min_delta": 10.0}}
LAST_STEP = 14


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that stopped early; not to be changed."""
    return Runs(tmp_path_factory.mktemp("undisturbed")).train(CHANGES)


@pytest.fixture
def runs(tmp_path: Path, undisturbed: Path) -> Runs:
    """For runs of the test."""
    shutil.copytree(undisturbed, tmp_path / "runs" / "stopped")
    return Runs(tmp_path)


def test_run_that_stopped_early_is_complete_and_says_why(undisturbed: Path) -> None:
    record, summary = read_json(undisturbed / "run.json"), read_json(undisturbed / "summary.json")
    assert record["status"] == "completed"
    assert record["stopped_early"] == summary["stopped_early"]
    assert record["stopped_early"].startswith("validation/loss did not improve in 2 evaluations; its best value, ")
    assert (summary["steps"], rows_of(undisturbed)[-1]["step"]) == (LAST_STEP, LAST_STEP)
    assert set(summary["test"]) == {"loss", "accuracy"}
    assert "stopped early at step 14: validation/loss" in (undisturbed / "train.log").read_text()
    saved = checkpoint.load(CheckpointDirectory(undisturbed / "checkpoints").path_of(LAST_STEP))
    assert saved.metadata["stop_early"]["evaluations_without_improvement"] == 2
    assert saved.metadata["stop_early"]["best_step"] == 7


@pytest.mark.parametrize("step", [2, 8, 11, 13, 14], ids=lambda step: f"in-step-{step}")
def test_resumed_run_stops_where_the_uninterrupted_one_does(runs: Runs, undisturbed: Path, step: int) -> None:
    run = runs.train(CHANGES, name="killed", kill_at=f"coordinator: before a step|{step}")
    assert runs.resume(run).exit_code == 0
    assert outcome(run) == outcome(undisturbed)


def test_run_killed_after_its_end_was_saved_is_resumed_to_the_same_end(runs: Runs, undisturbed: Path) -> None:
    run = runs.train(CHANGES, name="killed", kill_at="coordinator: after a save|5")
    assert read_json(run / "run.json")["status"] == "running"
    assert runs.resume(run).exit_code == 0
    assert outcome(run) == outcome(undisturbed)


def test_run_that_ends_between_evaluations_goes_on_as_if_it_had_not(runs: Runs, undisturbed: Path) -> None:
    """The evaluation at such an end is one that the longer run does not make, and does not count."""
    run = runs.train({**CHANGES, "training.max_steps": 12}, name="short")
    assert read_json(run / "summary.json")["stopped_early"] is None
    assert runs.resume(run, "--max-steps", 30).exit_code == 0
    stopped = read_json(run / "summary.json")
    assert (stopped["steps"], stopped["stopped_early"]) == (
        LAST_STEP,
        read_json(undisturbed / "summary.json")["stopped_early"],
    )
    assert stopped["parameters_sha256"] == read_json(undisturbed / "summary.json")["parameters_sha256"]


@pytest.mark.parametrize("arguments", [(), ("--epochs", 9)])
def test_resume_of_a_run_that_stopped_early_says_so_and_does_nothing(runs: Runs, arguments: tuple[object, ...]) -> None:
    before = (runs.folder / "runs" / "stopped" / "run.json").read_bytes()
    result = runs.resume(runs.folder / "runs" / "stopped", *arguments)
    assert result.exit_code == 0
    assert "is complete: it stopped early at step 14: validation/loss did not improve" in result.stderr
    assert "--init-from" in result.stderr
    assert (runs.folder / "runs" / "stopped" / "run.json").read_bytes() == before


def test_resume_cannot_change_when_it_would_stop(runs: Runs) -> None:
    run = runs.train(CHANGES, name="killed", kill_at="coordinator: before a step|9")
    for change in ("logging.evaluate_every_steps=3", "training.stop_early.patience=9"):
        result = runs.resume(run, "--set", change)
        assert result.exit_code == 2
        assert f"{change.partition('=')[0]}: " in result.stderr
        assert "but not logging.evaluate_every_epochs and evaluate_every_steps" in result.stderr
    assert runs.resume(run, "--set", "logging.every_steps=5").exit_code == 0


def test_stopping_early_needs_examples_for_validation(runs: Runs) -> None:
    config = write_config(runs.folder, CHANGES | {"data.validation_examples": 0})
    result = runs.call("--config", config, "--run-dir", runs.folder / "none")
    assert result.exit_code == 2
    assert "training.stop_early needs validation examples" in result.stderr
