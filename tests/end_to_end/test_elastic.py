"""Jobs that go on after the death of ranks: `--elastic`."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from partrain.store.run_directory import RunDirectory
from tests.mpi_processes import MPIEXEC, MpiJobs, isolated_jobs, mpiexec, needs_mpi, ranks_of
from tests.processes import is_running
from tests.program import PartrainProcess
from tests.small_run import ENDLESS
from tests.whole_runs import Runs, outcome, read_json, write_config

needs_ulfm = pytest.mark.skipif(
    sys.platform != "linux" or MPIEXEC is None or not Path(MPIEXEC).with_name("prterun").exists(),
    reason="mpiexec is not that of Open MPI 5, which has ULFM",
)
SURVIVING = ("--with-ft", "ulfm")


@pytest.fixture
def mpi_jobs(start_partrain: Callable[..., PartrainProcess]) -> Iterator[MpiJobs]:
    with isolated_jobs() as environment:
        yield MpiJobs(start_partrain, environment)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return outcome(Runs(tmp_path_factory.mktemp("undisturbed")).train())


def start_elastic(jobs: MpiJobs, folder: Path, num_ranks: int, *words: object, **options: Any) -> PartrainProcess:
    words = words or ("--config", write_config(folder), "--run-dir", "run", "--workers", 1)
    return jobs.start(num_ranks, *words, "--elastic", wrapper=mpiexec(num_ranks, *SURVIVING), **options)


def test_elastic_without_ranks_is_refused(run_partrain: Callable[..., Any], tmp_path: Path) -> None:
    refusal = run_partrain("--config", write_config(tmp_path), "--run-dir", tmp_path / "run", "--elastic").refusal
    assert "--elastic goes with --engine mpi" in refusal
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("number", ["0", "-1", "two", "1.5"])
def test_number_of_spares_that_is_none_is_refused(
    number: str, run_partrain: Callable[..., Any], tmp_path: Path
) -> None:
    words = ("--config", write_config(tmp_path), "--engine", "mpi", "--elastic", f"--spares={number}")
    assert f"--spares: '{number}' is not a whole number from 1" in run_partrain(*words).refusal


def test_spares_of_a_job_that_is_not_elastic_are_refused(run_partrain: Callable[..., Any], tmp_path: Path) -> None:
    words = ("--config", write_config(tmp_path), "--engine", "mpi", "--spares", "1")
    assert "--spares goes with --engine mpi --elastic" in run_partrain(*words).refusal
    assert "--spares goes with --engine mpi --elastic" in run_partrain(*words, "--dry-run").refusal


def test_dry_run_says_what_spares_do(run_partrain: Callable[..., Any], tmp_path: Path) -> None:
    words = ("--config", write_config(tmp_path), "--engine", "mpi", "--elastic", "--dry-run", "--spares")
    started = {"OMPI_COMM_WORLD_SIZE": "3"}
    said = run_partrain(*words, 1, env=started).stdout
    assert re.search(r"^ +2 .* none$", said, re.M)
    assert "spares: the last rank waits, with data and kernels, to work in the place of a rank that dies" in said
    refusal = run_partrain(*words, 3, env=started).refusal
    assert "--spares 3: mpiexec started only 3 ranks, and at least one must work" in refusal


@pytest.mark.slow
@needs_mpi
@needs_ulfm
def test_job_of_spares_alone_is_refused_with_one_message(mpi_jobs: MpiJobs, tmp_path: Path) -> None:
    words = ("--config", write_config(tmp_path), "--run-dir", "run", "--workers", 0, "--spares", 2)
    result = start_elastic(mpi_jobs, tmp_path, 2, *words).wait()
    assert result.exit_code == 2
    assert result.stderr.count("error: ") == result.stderr.count("--spares 2: mpiexec started only 2 ranks") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@needs_mpi
@needs_ulfm
def test_spare_works_in_the_place_of_a_dead_rank_and_the_death_of_another_spare_disturbs_nothing(
    mpi_jobs: MpiJobs, tmp_path: Path
) -> None:
    changes = {"training.epochs": 20}
    alone = tmp_path / "alone"
    alone.mkdir()
    expected = outcome(Runs(alone).train(changes))
    words = ("--config", write_config(tmp_path, changes), "--run-dir", "run", "--workers", 0, "--spares", 2)
    process = start_elastic(mpi_jobs, tmp_path, 4, *words)
    process.wait_for("epoch 1, step 10")
    first, *_, last = ranks_of(process)
    os.kill(last.pid, signal.SIGKILL)
    process.wait_for("rank 3 on")
    os.kill(first.pid, signal.SIGKILL)
    result = process.wait()
    assert (result.exit_code, result.stdout) == (0, "run\n"), result.stderr
    assert outcome(tmp_path / "run") == expected
    said = [line for line in result.stderr.splitlines() if " died" in line]
    assert len(said) == 2, said
    assert re.search(r"rank 3 on \S+ \(spare\) died; 1 spare is left, and the training is not disturbed$", said[0])
    assert re.search(
        r"rank 0 on \S+ died, and rank 2 on \S+ \(spare\) begins to work; 2 ranks go on from step \d+", said[1]
    )


@pytest.mark.slow
@needs_mpi
@needs_ulfm
def test_signal_to_a_spare_stops_the_job_and_saves_the_run(mpi_jobs: MpiJobs, tmp_path: Path) -> None:
    words = ("--config", write_config(tmp_path, ENDLESS), "--runs-dir", "runs", "--workers", 0, "--spares", 1)
    process = start_elastic(mpi_jobs, tmp_path, 2, *words)
    run = process.wait_for_training()
    os.kill(ranks_of(process)[1].pid, signal.SIGHUP)
    result = process.wait()
    assert (result.exit_code, result.stdout) == (129, ""), result.stderr
    assert re.search(r"ended by SIGHUP; the run is saved at step \d+", result.stderr)
    assert "NBC_Progress" not in result.stderr, "the spare does not wait for the others"
    assert RunDirectory.open(run).status() == "interrupted"


@pytest.mark.slow
@needs_mpi
@needs_ulfm
def test_job_that_mpiexec_would_end_is_refused(mpi_jobs: MpiJobs, tmp_path: Path) -> None:
    words = ("--config", write_config(tmp_path), "--run-dir", "run", "--workers", 0, "--elastic")
    result = mpi_jobs.start(2, *words).wait()
    assert result.exit_code == 2
    assert result.stderr.count("start it with Open MPI's mpiexec --with-ft ulfm") == 1
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()


# Of the ranks, the first that passes the point dies; only rank 0 saves.
@pytest.mark.slow
@needs_mpi
@needs_ulfm
@pytest.mark.parametrize(
    "place",
    [
        "coordinator: after the run's directory was made|1",
        "coordinator: after an update|15",
        "coordinator: before an evaluation|2",
        "coordinator: between a save and the deletion of older ones|2",
        "coordinator: at the end|1",
    ],
)
def test_survivors_of_a_death_go_on_with_the_same_bits(
    place: str, mpi_jobs: MpiJobs, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    token = tmp_path / "one death"
    token.touch()
    result = start_elastic(mpi_jobs, tmp_path, 3, env={"PARTRAIN_KILL_AT": f"{place}|{token}"}).wait()
    assert not token.exists()
    assert (result.exit_code, result.stdout) == (0, "run\n"), result.stderr
    assert outcome(tmp_path / "run") == undisturbed
    assert len(re.findall(r"rank \d on \S+ died; 2 ranks go on.*, after \d+\.\d\d s$", result.stderr, re.M)) == 1
    assert "Traceback" not in result.stderr


@pytest.mark.slow
@needs_mpi
@needs_ulfm
def test_two_deaths_in_a_resumed_job_leave_a_rank_that_completes_it(
    mpi_jobs: MpiJobs, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    Runs(tmp_path).train(kill_at="coordinator: after an update|9")
    process = start_elastic(mpi_jobs, tmp_path, 3, "resume", "runs/run", "--workers", 1)
    process.wait_for("resumed from step")
    for rank in ranks_of(process)[:2]:
        os.kill(rank.pid, signal.SIGKILL)
    result = process.wait()
    assert (result.exit_code, result.stdout) == (0, "runs/run\n"), result.stderr
    assert outcome(tmp_path / "runs" / "run") == undisturbed
    assert "died; 1 rank goes on from step" in result.stderr
    assert read_json(tmp_path / "runs" / "run" / "run.json")["ranks"][0]["workers"] == 1


# A silent rank is killed after 4 s, and not after 60.
IMPATIENT = """
from partrain.parallel.mpi import liveness
liveness.SILENT_SECONDS = 4.0
from partrain.__main__ import main
raise SystemExit(main())
"""


@pytest.mark.slow
@needs_mpi
@needs_ulfm
def test_stopped_rank_is_killed_and_cannot_write_any_more(mpi_jobs: MpiJobs, tmp_path: Path) -> None:
    changes = {"training.epochs": 20}
    alone = tmp_path / "alone"
    alone.mkdir()
    expected = outcome(Runs(alone).train(changes))
    words = ("--config", write_config(tmp_path, changes), "--run-dir", "run", "--workers", 1)
    process = start_elastic(mpi_jobs, tmp_path, 2, *words, program=[sys.executable, "-c", IMPATIENT])
    process.wait_for("epoch 1, step 10")
    stopped = ranks_of(process)[0].pid
    os.kill(stopped, signal.SIGSTOP)
    result = process.wait()
    assert (result.exit_code, result.stdout) == (0, "run\n"), result.stderr
    assert "rank 0 on" in result.stderr
    assert "died; 1 rank goes on from step" in result.stderr
    assert not is_running(stopped)
    assert outcome(tmp_path / "run") == expected
