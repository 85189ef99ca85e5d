"""Runs whose examples are mixed, smoothed and augmented: the same bits after a resumption, and on several ranks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.mpi_processes import MpiJobs, isolated_jobs, needs_mpi
from tests.program import PartrainProcess
from tests.whole_runs import IN_MID_EPOCH, Runs, outcome, write_config

MIXED: dict[str, Any] = {
    "training.label_smoothing": 0.1,
    "training.mixup": {"alpha": 0.4},
    "training.cutmix": {"alpha": 1.0},
    "training.augment": {
        **{"shift": 2, "rotation": 10, "crop": {"padding": [2, 3]}, "flip": "horizontal"},
        **{"brightness": 0.2, "contrast": 0.3, "erase": {"probability": 0.5}},
    },
}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without workers that nothing disturbed."""
    return Runs(tmp_path_factory.mktemp("mixed")).train(MIXED)


def test_run_killed_in_mid_epoch_has_the_bits_of_the_undisturbed_run(runs: Runs, mixed: Path) -> None:
    run = runs.train(MIXED, kill_at=IN_MID_EPOCH)
    resumed = runs.call("resume", run, "--workers", 2)
    assert resumed.exit_code == 0, resumed
    assert outcome(run) == outcome(mixed)


def test_verification_computes_the_same_steps_again(runs: Runs, mixed: Path) -> None:
    verified = runs.call("verify", mixed)
    assert verified.exit_code == 0, verified


@pytest.mark.slow
@needs_mpi
def test_number_of_ranks_changes_no_bit(
    start_partrain: Callable[..., PartrainProcess], tmp_path: Path, mixed: Path
) -> None:
    with isolated_jobs() as environment:
        words = ("--config", write_config(tmp_path, MIXED), "--run-dir", "run", "--workers", 1)
        result = MpiJobs(start_partrain, environment).start(3, *words).wait()
        assert result.exit_code == 0, result.stderr
        assert outcome(tmp_path / "run") == outcome(mixed)
