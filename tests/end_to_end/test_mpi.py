"""Trainings on several ranks: the same bits, failures on one of them, signals, and ranks that do not fit together."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from partrain.store.run_directory import RunDirectory
from tests.end_to_end.test_interruption import assert_saved
from tests.mpi_processes import MpiJobs, isolated_jobs, mapped_by, mpiexec, needs_mpi, ranks_of, segments, workers_of
from tests.processes import wait_until
from tests.program import ROOT, PartrainProcess, Result
from tests.small_run import ENDLESS
from tests.whole_runs import Runs, outcome, read_json, write_config

# How long the end of a job may take: it is promised within 5 s, and this is a machine that does other things, too.
END_SECONDS = 50
TWO_TILES: dict[str, Any] = {"training.tile": 10, "training.per_example": {"statistics": True, "clip": 1.0}}


@pytest.fixture
def mpi_jobs(start_partrain: Callable[..., PartrainProcess]) -> Iterator[MpiJobs]:
    with isolated_jobs() as environment:
        yield MpiJobs(start_partrain, environment)


def expected(folder: Path, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return what comes of the run without MPI and without workers."""
    folder.mkdir()
    return outcome(Runs(folder).train(changes))


@pytest.fixture(scope="module")
def without_mpi(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return expected(tmp_path_factory.mktemp("without") / "mpi")


# ---- the same bits


@needs_mpi
@pytest.mark.parametrize(
    ("num_ranks", "num_workers"),
    [(1, 2), (2, 1), *(pytest.param(*numbers, marks=pytest.mark.slow) for numbers in ((3, 2), (4, 0)))],
)
def test_number_of_ranks_changes_no_bit(
    num_ranks: int, num_workers: int, mpi_jobs: MpiJobs, tmp_path: Path, without_mpi: dict[str, Any]
) -> None:
    words = ("--config", write_config(tmp_path), "--run-dir", "run", "--workers", num_workers)
    result = mpi_jobs.start(num_ranks, *words).wait()
    assert (result.exit_code, result.stdout) == (0, "run\n"), result.stderr
    assert outcome(tmp_path / "run") == without_mpi
    assert "Traceback" not in result.stderr
    assert "warning" not in result.stderr
    greetings = re.findall(r"on (\d) ranks? with", result.stderr)
    assert greetings == [str(num_ranks)], "rank 0 alone speaks"
    record, summary = (read_json(tmp_path / "run" / name) for name in ("run.json", "summary.json"))
    assert record["ranks"] == num_ranks * [{"host": socket.gethostname(), "workers": num_workers}]
    assert (record["workers"], summary["workers"]) == (num_ranks * num_workers, num_ranks * num_workers)
    assert summary["ranks"] == num_ranks
    # An interpreter with Numba takes more than this; so all ranks have been counted.
    assert summary["peak_memory_bytes"] > num_ranks * 30 * 2**20


@pytest.mark.slow
@needs_mpi
def test_ranks_without_a_tile_change_no_bit_and_no_norm(mpi_jobs: MpiJobs, tmp_path: Path) -> None:
    words = ("--config", write_config(tmp_path, TWO_TILES), "--run-dir", "run", "--workers", 1)
    result = mpi_jobs.start(3, *words).wait()
    assert result.exit_code == 0, result.stderr
    assert result.stderr.count("there are 3 ranks: 1 of them have nothing to compute") == 1
    assert outcome(tmp_path / "run") == expected(tmp_path / "alone", TWO_TILES)


@pytest.mark.slow
@needs_mpi
def test_killed_rank_ends_the_job_and_another_number_of_ranks_resumes_it(
    mpi_jobs: MpiJobs, tmp_path: Path, without_mpi: dict[str, Any]
) -> None:
    token = tmp_path / "one death"
    token.touch()
    env = {"PARTRAIN_KILL_AT": f"coordinator: after an update|15|{token}"}
    words = ("--config", write_config(tmp_path), "--run-dir", "run", "--workers", 1)
    killed = mpi_jobs.start(2, *words, env=env).wait()
    assert killed.exit_code == 128 + signal.SIGKILL, killed.stderr
    assert RunDirectory.open(tmp_path / "run").status() == "interrupted"
    resumed = mpi_jobs.start(3, "resume", "run", "--workers", 2).wait()
    assert (resumed.exit_code, resumed.stdout) == (0, "run\n"), resumed.stderr
    assert outcome(tmp_path / "run") == without_mpi
    record = read_json(tmp_path / "run" / "run.json")
    assert (len(record["ranks"]), len(record["lineage"][0]["ranks"])) == (3, 3)


# ---- failures and signals


@needs_mpi
def test_failure_of_a_rank_ends_the_job_with_its_cause_and_the_run_saved(mpi_jobs: MpiJobs, tmp_path: Path) -> None:
    config = write_config(tmp_path, ENDLESS | {"workers": {"max_restarts": 0}})
    process = mpi_jobs.start(2, "--config", config, "--runs-dir", "runs", "--workers", 1)
    run = process.wait_for_training()
    os.kill(workers_of(process, ranks_of(process)[1].pid)[0], signal.SIGKILL)
    began = time.monotonic()
    result = process.wait()
    assert time.monotonic() - began < END_SECONDS
    assert (result.exit_code, result.stdout) == (1, "")
    said = re.findall(r"^error: (.*)$", result.stderr, re.MULTILINE)
    assert len(said) == 1
    assert re.match(r"rank 1 on \S+: worker 0 was killed by SIGKILL; the limit on replacements", said[0])
    assert_saved(run, "failed")
    assert read_json(run / "run.json")["cause"].startswith("rank 1 failed: worker 0 was killed")


@pytest.mark.slow
@needs_mpi
def test_what_all_ranks_find_out_rank_0_says(mpi_jobs: MpiJobs, tmp_path: Path) -> None:
    config = write_config(tmp_path, {"training.optimizer.lr": 1e30})
    result = mpi_jobs.start(2, "--config", config, "--run-dir", "run", "--workers", 0).wait()
    assert result.exit_code == 1
    assert len(re.findall(r"^error: ", result.stderr, re.MULTILINE)) == 1
    assert re.search(r"^error: rank 0 on \S+: step \d: .* not finite", result.stderr, re.MULTILINE)
    assert RunDirectory.open(tmp_path / "run").status() == "failed"


def start_endless(jobs: MpiJobs, folder: Path) -> tuple[PartrainProcess, Path]:
    process = jobs.start(2, "--config", write_config(folder, ENDLESS), "--runs-dir", "runs", "--workers", 1)
    return process, process.wait_for_training()


@pytest.mark.slow
@needs_mpi
def test_sigusr1_to_mpiexec_saves_and_ends(mpi_jobs: MpiJobs, tmp_path: Path) -> None:
    process, run = start_endless(mpi_jobs, tmp_path)
    process.send(signal.SIGUSR1)
    result = process.wait()
    assert (result.exit_code, result.stdout) == (128 + signal.SIGUSR1, "")
    assert "ended by SIGUSR1; the run is saved at step" in result.stderr
    assert "Traceback" not in result.stderr
    assert_saved(run, "interrupted")


@needs_mpi
def test_sigterm_to_mpiexec_ends_all_processes(mpi_jobs: MpiJobs, tmp_path: Path) -> None:
    process, run = start_endless(mpi_jobs, tmp_path)
    process.send(signal.SIGTERM)
    # Open MPI's launcher kills the ranks half a second later. On a busy machine a save may take longer: so that the
    # run can go on is what is certain, not from which step.
    assert process.wait(END_SECONDS).exit_code == 1
    assert RunDirectory.open(run).status() == "interrupted"


@pytest.mark.slow
@needs_mpi
def test_ranks_whose_launcher_is_killed_save_and_end_and_clean_up(mpi_jobs: MpiJobs, tmp_path: Path) -> None:
    process, run = start_endless(mpi_jobs, tmp_path)
    own_segments = mapped_by(entry.pid for entry in process.processes())
    assert own_segments
    process.send(signal.SIGKILL)
    assert process.wait(END_SECONDS).exit_code == -signal.SIGKILL
    wait_until(lambda: not process.processes(), "the end of the ranks", END_SECONDS)
    assert_saved(run, "interrupted")
    assert not own_segments & segments()


# ---- ranks that hang, and ranks that are only late

# A rank that waits asks after 0.5 s, and not after 5, and so on.
IMPATIENT = """
from partrain.parallel.mpi import liveness
liveness.ASK_SECONDS, liveness.WARN_SECONDS, liveness.SILENT_SECONDS = 0.5, 2.0, 4.0
from partrain.__main__ import main
raise SystemExit(main())
"""


def start_impatient(jobs: MpiJobs, folder: Path, num_ranks: int) -> tuple[PartrainProcess, Path]:
    words = ("--config", write_config(folder, ENDLESS), "--runs-dir", "runs", "--workers", 1)
    process = jobs.start(num_ranks, *words, program=[sys.executable, "-c", IMPATIENT])
    return process, process.wait_for_training()


@pytest.mark.slow
@needs_mpi
@pytest.mark.parametrize(("num_ranks", "stopped", "speaker"), [(3, 1, 0), (2, 0, 1)])
def test_stopped_rank_is_named_and_ends_the_job(
    num_ranks: int, stopped: int, speaker: int, mpi_jobs: MpiJobs, tmp_path: Path
) -> None:
    process, run = start_impatient(mpi_jobs, tmp_path, num_ranks)
    os.kill(ranks_of(process)[stopped].pid, signal.SIGSTOP)
    result = process.wait(END_SECONDS)
    assert (result.exit_code, result.stdout) == (1, "")
    silence = rf"on \S+: no answer from rank {stopped} on \S+ for"
    assert len(re.findall(rf"^warning: rank {speaker} {silence} 2 s", result.stderr, re.MULTILINE)) == 1, result.stderr
    # A rank that finds the error waits 0.3 s for a lower one to report it; on a busy machine that one may be later.
    assert len(re.findall(rf"^error: rank \d {silence} 4 s", result.stderr, re.MULTILINE)) == 1, result.stderr
    assert result.stderr.count("no answer from") == 2, result.stderr
    assert len(re.findall(r"^error: ", result.stderr, re.MULTILINE)) == 1, result.stderr
    assert "Traceback" not in result.stderr
    if stopped != 0:
        assert_saved(run, "failed")
    else:  # mpiexec wakes it before it kills it: it may still save, or not
        assert RunDirectory.open(run).status() in ("failed", "interrupted")


@pytest.mark.slow
@needs_mpi
def test_rank_whose_workers_take_long_is_waited_for(mpi_jobs: MpiJobs, tmp_path: Path) -> None:
    process, run = start_impatient(mpi_jobs, tmp_path, 2)
    worker = workers_of(process, ranks_of(process)[1].pid)[0]
    os.kill(worker, signal.SIGSTOP)
    process.wait_for("waiting for rank 1 on")
    time.sleep(4)  # beyond what a silent rank is granted
    os.kill(worker, signal.SIGCONT)
    length = (run / "metrics.jsonl").stat().st_size
    wait_until(lambda: (run / "metrics.jsonl").stat().st_size > length, "another step", END_SECONDS)
    process.send(signal.SIGUSR1)
    result = process.wait(END_SECONDS)
    assert result.exit_code == 128 + signal.SIGUSR1, result.stderr
    assert "no answer" not in result.stderr
    assert_saved(run, "interrupted")


# ---- ranks that do not fit together


@needs_mpi
def test_ranks_that_were_asked_for_different_things_are_told_so(mpi_jobs: MpiJobs, tmp_path: Path) -> None:
    program = [sys.executable, "-m", "partrain"]
    words = ["--config", str(write_config(tmp_path)), "--runs-dir", "runs", "--workers", "0", "--engine", "mpi"]
    wrapper = [*mpiexec(1), *program, *words, "--set", "seed=3", ":", "-n", "1"]
    result = mpi_jobs.start(2, *words[:-2], wrapper=wrapper).wait()
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.search(r"rank 1 on \S+: --set: \['seed=3'\] -> \[\]", result.stderr)
    assert not (tmp_path / "runs").exists()


@needs_mpi
def test_host_with_other_data_is_named(mpi_jobs: MpiJobs, tmp_path: Path, noise_folder: Path) -> None:
    config = write_config(tmp_path, {"data": {"name": "idx", "path": "noise"}, "training.batch_size": 10})
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "noise").symlink_to(noise_folder, target_is_directory=True)
    program = [sys.executable, "-m", "partrain"]
    words = ["--config", str(config), "--runs-dir", "runs", "--workers", "0", "--engine", "mpi"]
    other = noise_folder.parent / "other"
    other.mkdir()
    for file in noise_folder.iterdir():
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        (other / "noise").mkdir(exist_ok=True)
        (other / "noise" / file.name).write_bytes(content)
    wrapper = [*mpiexec(1, "-wdir", str(elsewhere)), *program, *words, ":", "-n", "1", "-wdir", str(other)]
    result = mpi_jobs.start(2, *words[:-2], wrapper=wrapper).wait()
    assert (result.exit_code, result.stdout) == (2, ""), result.stderr
    assert re.search(r"rank 1 on \S+: data digest: \w+ -> \w+", result.stderr), result.stderr
    assert list((elsewhere / "runs").iterdir()) == []


@needs_mpi
def test_process_that_takes_itself_to_be_alone_refuses(mpi_jobs: MpiJobs, tmp_path: Path) -> None:
    words = ("--config", write_config(tmp_path), "--runs-dir", "runs", "--workers", 0)
    result = mpi_jobs.start(1, *words, wrapper=[], env={"SLURM_STEP_NUM_TASKS": "4"}).wait()
    assert (result.exit_code, result.stdout) == (2, "")
    assert "SLURM_STEP_NUM_TASKS says that 4 processes were started" in result.stderr
    assert "srun --mpi=pmix" in result.stderr
    assert not (tmp_path / "runs").exists()


def test_without_mpi4py_the_message_names_the_extra(
    call_partrain: Callable[..., Result], small_config: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    result = call_partrain("--config", small_config(), "--workers", 0, "--engine", "mpi")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "pip install 'partrain[mpi]'" in result.stderr


# ---- the plan


def test_dry_run_prints_what_the_ranks_exchange(
    call_partrain: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--config", ROOT / "configs/synthetic-digits.yaml", "--workers", 1, "--dry-run", "-q")
    alone, planned = (call_partrain(*words, *more).stdout for more in ((), ("--engine", "mpi")))
    plan, _, table = planned.partition("\nexchange of a step")
    assert plan.startswith(alone.partition("memory plan")[0])
    assert "MiB  exchange between 2 ranks\n" in plan
    assert [line.split()[0] for line in table.splitlines()[2:]] == ["2", "4", "8"]
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "3")
    for_three = call_partrain(*words, "--engine", "mpi").stdout.splitlines()[-1].split()
    assert (for_three[0], for_three[-1]) == ("3", "none")
    assert int(for_three[5].replace(",", "")) < 200_000
    words = ("--set", "training.batch_size=2048", *words)
    with_owners = call_partrain(*words, "--engine", "mpi").stdout.splitlines()[-1].split()
    assert (with_owners[0], with_owners[2], with_owners[-1]) == ("3", "0", "all")
