"""Open MPI's files in shared memory are removed when a rank and its launcher have ended, however they ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from partrain.parallel.mpi.launcher import own_segment, removing_segments_at_end
from tests.mpi_processes import MpiJobs, isolated_jobs, needs_mpi, ranks_of
from tests.processes import is_running, wait_until
from tests.program import ROOT, PartrainProcess

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs process descriptors")

RANK = """
import mmap, os, sys, time
from partrain.parallel.mpi import launcher
launcher.SEGMENT_PREFIX = sys.argv[1]
with launcher.removing_segments_at_end({"OMPI_COMM_WORLD_RANK": "0"}):
    with open(sys.argv[1] + "host.0.1a.0", "w+b") as file:
        file.truncate(4096)
        segment = mmap.mmap(file.fileno(), 4096)
    print(os.getpid(), flush=True)
    if sys.argv[2] == "starting":
        time.sleep(600)
print("started", flush=True)
time.sleep(600)
"""
LAUNCHER = "import subprocess, sys, time; subprocess.run([sys.executable, '-c', *sys.argv[1:]]); time.sleep(600)"


class Job:
    """A launcher with one rank, which has mapped a segment."""

    def __init__(self, folder: Path, phase: str) -> None:
        command = [sys.executable, "-c", LAUNCHER, RANK, f"{folder}/sm_segment.", phase]
        self.launcher = subprocess.Popen(command, stdout=-1, text=True, cwd=ROOT)
        assert self.launcher.stdout is not None
        self.rank = int(self.launcher.stdout.readline())
        if phase == "started":
            assert self.launcher.stdout.readline() == "started\n"
        self.segment = folder / "sm_segment.host.0.1a.0"
        assert self.segment.exists()

    def kill_rank(self) -> None:
        os.kill(self.rank, signal.SIGKILL)
        wait_until(lambda: not is_running(self.rank), "the end of the rank")

    def kill_launcher(self) -> None:
        self.launcher.kill()
        self.launcher.wait()  # not for the end of its output: the rank has it, too

    def close(self) -> None:
        if self.launcher.poll() is None:
            self.kill_launcher()
        if is_running(self.rank):
            self.kill_rank()
        assert self.launcher.stdout is not None
        self.launcher.stdout.close()


@pytest.fixture
def start_job(tmp_path: Path) -> Iterator[Callable[[str], Job]]:
    jobs: list[Job] = []

    def start(phase: str) -> Job:
        jobs.append(Job(tmp_path, phase))
        return jobs[-1]

    yield start
    for job in jobs:
        job.close()


@pytest.mark.parametrize("phase", ["starting", "started"])
def test_segment_is_removed_when_launcher_and_rank_were_killed(start_job: Callable[[str], Job], phase: str) -> None:
    job = start_job(phase)
    if phase == "starting":
        wait_for_two_looks(job.rank)
    job.kill_launcher()
    assert job.segment.exists(), "the rank still uses it"
    job.kill_rank()
    wait_until(lambda: not job.segment.exists(), "the end of the segment")


def test_segment_is_left_to_a_launcher_that_lives(start_job: Callable[[str], Job]) -> None:
    job = start_job("started")
    job.kill_rank()
    assert job.segment.exists()
    job.kill_launcher()
    wait_until(lambda: not job.segment.exists(), "the end of the segment")


def test_segment_of_the_same_name_of_another_job_is_kept(start_job: Callable[[str], Job], tmp_path: Path) -> None:
    job = start_job("started")
    other = tmp_path / "other"
    other.touch()
    other.replace(job.segment)
    watching = wait_until(lambda: children_in_other_sessions(job.rank), "the watching process")
    assert len(watching) == 1
    job.kill_launcher()
    job.kill_rank()
    wait_until(lambda: not is_running(watching[0]), "the end of the watching process")
    assert job.segment.exists()


def wait_for_two_looks(rank: int) -> None:
    """Wait until the watching process has looked at the rank, and slept, twice more."""
    (watching,) = wait_until(lambda: children_in_other_sessions(rank), "the watching process")

    def num_sleeps() -> int:
        status = Path(f"/proc/{watching}/status").read_text()
        return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])

    before = num_sleeps()
    wait_until(lambda: num_sleeps() >= before + 2, "two looks")


def children_in_other_sessions(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if os.getsid(int(child)) != os.getsid(pid)]


def test_name_of_the_own_segment_follows_from_the_name_of_the_job() -> None:
    variables = {"PMIX_NAMESPACE": "prterun-vm-9077@1", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
    assert own_segment(variables) == f"/dev/shm/sm_segment.*.{os.geteuid()}.32750001.1"
    assert own_segment({}) is None
    assert own_segment(variables | {"PMIX_NAMESPACE": "slurm.pmix.1.0"}) is None


def test_mpi_starts_unwatched_if_no_process_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise BlockingIOError

    files = os.listdir("/dev/fd")
    monkeypatch.setattr(os, "fork", refuse)
    with removing_segments_at_end({"OMPI_COMM_WORLD_RANK": "0"}):
        pass
    assert os.listdir("/dev/fd") == files


def test_process_that_is_no_rank_is_not_watched() -> None:
    before = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text()
    with removing_segments_at_end({}):
        assert Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text() == before


def mapped_segments(pids: list[int]) -> set[Path]:
    found = set()
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
        except OSError:
            continue
        found |= {Path(line.split()[5]) for line in lines if "/dev/shm/sm_segment." in line}
    return found


@needs_mpi
def test_mpiexec_that_is_killed_before_the_first_step_leaves_no_segment(
    start_partrain: Callable[..., PartrainProcess], small_config: Callable[..., Path]
) -> None:
    with isolated_jobs() as environment:
        process = MpiJobs(start_partrain, environment).start(2, "--config", small_config(), "--workers", 0)
        process.wait_for("drawing")
        segments = mapped_segments([rank.pid for rank in ranks_of(process)])
        assert segments
        process.popen.kill()
        wait_until(lambda: not process.processes(), "the end of the ranks", 60.0)
        wait_until(lambda: not any(path.exists() for path in segments), "the end of the segments")
