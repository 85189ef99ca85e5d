"""Trainings on several ranks, each of which owns a part of the parameters: the same bits, checkpoints, failures."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from partrain.store.run_directory import RunDirectory
from tests.end_to_end.test_interruption import assert_saved
from tests.mpi_processes import MpiJobs, isolated_jobs, needs_mpi, ranks_of, workers_of
from tests.program import PartrainProcess
from tests.small_run import ENDLESS
from tests.whole_runs import Runs, outcome, read_json, saved_steps, write_config

pytestmark = [needs_mpi, pytest.mark.slow]

# Batches of 13 blocks, and one of 4. Random images, dropout, class weights, clipping and statistics.
OWNERS: dict[str, Any] = {
    "data.train_examples": 900,
    "training.batch_size": 400,
    "training.tile": 4,
    "training.per_example": {"statistics": True, "clip": 1.0},
    "training.class_weights": "balanced",
}


@pytest.fixture
def mpi_jobs(start_partrain: Callable[..., PartrainProcess]) -> Iterator[MpiJobs]:
    with isolated_jobs() as environment:
        yield MpiJobs(start_partrain, environment)


@pytest.fixture(scope="module")
def without_mpi(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return outcome(Runs(tmp_path_factory.mktemp("without")).train(OWNERS))


def test_owners_change_no_bit(mpi_jobs: MpiJobs, tmp_path: Path, without_mpi: dict[str, Any]) -> None:
    config = write_config(tmp_path, OWNERS)
    planned = mpi_jobs.start(1, "--config", config, "--dry-run", wrapper=[], env={"OMPI_COMM_WORLD_SIZE": "3"})
    assert planned.wait().stdout.splitlines()[-1].split()[-1] == "all"
    result = mpi_jobs.start(3, "--config", config, "--run-dir", "run", "--workers", 1).wait()
    assert (result.exit_code, result.stdout) == (0, "run\n"), result.stderr
    assert outcome(tmp_path / "run") == without_mpi
    verified = mpi_jobs.start(2, "verify", "run", "--all", "--workers", 0).wait()
    assert verified.exit_code == 0, verified.stderr
    assert "same bits" in verified.stdout


@pytest.mark.parametrize("point", ["coordinator: after an update|3", "coordinator: before a save|1"])
def test_other_ranks_resume_after_a_kill(
    point: str, mpi_jobs: MpiJobs, tmp_path: Path, without_mpi: dict[str, Any]
) -> None:
    token = tmp_path / "one death"
    token.touch()
    words = ("--config", write_config(tmp_path, OWNERS), "--run-dir", "run", "--workers", 0)
    killed = mpi_jobs.start(2, *words, env={"PARTRAIN_KILL_AT": f"{point}|{token}"}).wait()
    assert killed.exit_code == 128 + signal.SIGKILL, killed.stderr
    assert RunDirectory.open(tmp_path / "run").status() == "interrupted"
    resumed = mpi_jobs.start(4, "resume", "run", "--workers", 0).wait()
    assert resumed.exit_code == 0, resumed.stderr
    assert outcome(tmp_path / "run") == without_mpi


def start_endless(jobs: MpiJobs, folder: Path) -> tuple[PartrainProcess, Path]:
    changes = OWNERS | ENDLESS | {"training.batch_size": 400, "workers": {"max_restarts": 0}}
    config = write_config(folder, changes | {"checkpoints": {"every_steps": 100_000}})
    process = jobs.start(2, "--config", config, "--runs-dir", "runs", "--workers", 1)
    return process, process.wait_for_training()


def test_signal_saves_the_moments_of_all_ranks(mpi_jobs: MpiJobs, tmp_path: Path) -> None:
    process, run = start_endless(mpi_jobs, tmp_path)
    process.send(signal.SIGUSR1)
    result = process.wait()
    assert result.exit_code == 128 + signal.SIGUSR1, result.stderr
    assert_saved(run, "interrupted")
    step = saved_steps(run)[-1]
    verified = mpi_jobs.start(1, "verify", run, "--all", "--workers", 0, wrapper=[], env={}).wait()
    assert (verified.exit_code, f"to {step:,}" in verified.stdout) == (0, True), verified.stderr


def test_rank_that_fails_still_gives_its_moments(mpi_jobs: MpiJobs, tmp_path: Path) -> None:
    process, run = start_endless(mpi_jobs, tmp_path)
    os.kill(workers_of(process, ranks_of(process)[1].pid)[0], signal.SIGKILL)
    result = process.wait()
    assert result.exit_code == 1
    assert len(re.findall(r"^error: rank 1 on \S+: worker 0 was killed", result.stderr, re.MULTILINE)) == 1
    assert "cannot be collected" not in result.stderr
    assert_saved(run, "failed")
    assert read_json(run / "run.json")["cause"].startswith("rank 1 failed: worker 0 was killed")
