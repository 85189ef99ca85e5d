"""A run that was killed before it began, or failed before its first checkpoint, loses nothing but its start."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from partrain.store.run_directory import RunDirectory
from partrain.store.unfinished_run import is_unfinished
from tests.program import Result
from tests.whole_runs import Runs, outcome, read_json, write_config

# A run that is killed at one of these points has a directory, and no run.json: before or after its configuration.
WITHOUT_CONFIGURATION = [
    "coordinator: after the run's directory was made|1",
    "coordinator: before a file is replaced|1",
]
WITH_CONFIGURATION = ["coordinator: after a file was replaced|1", "coordinator: before a file is replaced|2"]


def killed_at(runs: Runs, kill_at: str) -> Path:
    run = runs.train(kill_at=kill_at)
    assert is_unfinished(run)
    assert os.listdir(run.parent) == [run.name]
    return run


@pytest.mark.parametrize("kill_at", WITHOUT_CONFIGURATION + WITH_CONFIGURATION)
def test_train_takes_over_the_directory_of_a_run_that_was_killed_before_it_began(
    runs: Runs, undisturbed: Path, kill_at: str
) -> None:
    run = killed_at(runs, kill_at)
    assert runs.train() == run
    assert outcome(run) == outcome(undisturbed)


@pytest.mark.parametrize("kill_at", WITH_CONFIGURATION)
def test_resume_begins_a_run_that_was_killed_before_it_began(runs: Runs, undisturbed: Path, kill_at: str) -> None:
    run = killed_at(runs, kill_at)
    result = runs.resume(run, "--set", "checkpoints.keep_last=9")
    assert result.run == run
    assert "was killed before it began; it begins now" in result.stderr
    assert outcome(run) == outcome(undisturbed)


@pytest.mark.parametrize("kill_at", WITHOUT_CONFIGURATION)
def test_resume_without_a_configuration_says_how_to_begin(runs: Runs, kill_at: str) -> None:
    run = killed_at(runs, kill_at)
    message = runs.resume(run).refusal
    assert "was killed here before it began" in message
    assert "the command that created it" in message
    assert is_unfinished(run)


def test_resume_changes_only_runtime_fields_of_a_run_that_was_killed_before_it_began(runs: Runs) -> None:
    run = killed_at(runs, WITH_CONFIGURATION[0])
    assert "seed: 5 -> 6" in runs.resume(run, "--set", "seed=6").refusal
    assert is_unfinished(run)


def test_start_from_other_parameters_is_not_begun_again_with_random_ones(runs: Runs, undisturbed: Path) -> None:
    config = write_config(runs.folder)
    for place, kill_at in enumerate(WITHOUT_CONFIGURATION + WITH_CONFIGURATION):
        run = runs.folder / "runs" / f"run-{place}"
        words = ("--config", config, "--run-dir", run, "--init-from", undisturbed)
        assert runs.call(*words, kill_at=kill_at).exit_code == -signal.SIGKILL
        assert "the command that created it" in runs.resume(run).refusal
        assert runs.call(*words).exit_code == 0
        assert read_json(run / "run.json")["initialised_from"]


def test_run_that_failed_before_its_first_checkpoint_starts_again_from_step_0(
    call_partrain: Callable[..., Result],
    runs: Runs,
    undisturbed: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    run = runs.folder / "runs" / "run"
    with monkeypatch.context() as patch:
        patch.setattr("partrain.store.checkpoint_directory.write_durably", fail)
        result = call_partrain("--config", write_config(runs.folder), "--run-dir", run, "--workers", 0)
    assert result.exit_code == 1
    assert "there is no checkpoint" in result.stderr
    assert RunDirectory.open(run).status() == "failed"
    resumed = runs.resume(run)
    assert "failed before its first checkpoint; it starts again from step 0" in resumed.stderr
    assert outcome(run) == outcome(undisturbed)


def test_failure_says_what_is_saved_and_a_resume_makes_the_same_steps_again(runs: Runs) -> None:
    run = runs.folder / "runs" / "run"
    config = write_config(runs.folder, {"training.optimizer": {"lr": 1e30, "weight_decay": 1e10}})
    failed = runs.call("--config", config, "--run-dir", run)
    resumed = runs.resume(run)
    for result in (failed, resumed):
        assert result.exit_code == 1
        assert f"the run is {run}; it has no checkpoint" in result.stderr
        assert "RuntimeWarning" not in result.stderr
        assert result.stderr.splitlines()[-1] == failed.stderr.splitlines()[-1]
    assert "it starts again from step 0" in resumed.stderr
    assert "checkpoint" not in failed.stderr.splitlines()[-1]
