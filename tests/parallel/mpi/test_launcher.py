from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from partrain.parallel.mpi import launcher as mpi_launcher
from partrain.parallel.mpi.launcher import (
    end_launcher,
    launcher_variables,
    promised_ranks,
    remove_segments,
    undo_binding,
)
from partrain.parallel.workers.fork_server import child_environment
from tests.program import ROOT


def test_variables_of_the_launcher_are_told_from_others() -> None:
    environment = {"OMPI_COMM_WORLD_RANK": "1", "PMIX_RANK": "1", "PRTE_LAUNCHED": "1", "PATH": "/bin", "COMPI_X": "1"}
    assert launcher_variables(environment) == ["OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PRTE_LAUNCHED"]


def test_children_do_not_find_the_variables_of_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMIX_RANK", "1")
    with child_environment("fast", "float32"):
        assert "PMIX_RANK" not in os.environ
    assert os.environ["PMIX_RANK"] == "1"


@pytest.mark.parametrize("name", ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"])
def test_launcher_says_how_many_ranks_there_are(name: str) -> None:
    assert promised_ranks({name: "4"}) == (name, 4)
    assert promised_ranks({name: "1"}) is None
    assert promised_ranks({name: "many"}) is None
    assert promised_ranks({}) is None


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes cannot be bound here")
@pytest.mark.parametrize(("variable", "is_undone"), [("OMPI_COMM_WORLD_RANK", True), ("SLURM_PROCID", False)])
def test_binding_is_undone_where_open_mpi_made_it(variable: str, is_undone: bool) -> None:
    allowed = os.sched_getaffinity(0)
    program = f"""
import os
from partrain.parallel.mpi.launcher import undo_binding
os.sched_setaffinity(0, [{min(allowed)}])
undo_binding({{"{variable}": "0"}})
print(sorted(os.sched_getaffinity(0)))
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    bound = eval(ended.stdout)
    assert set(bound) >= allowed if is_undone else bound == [min(allowed)]
    undo_binding({})
    assert os.sched_getaffinity(0) == allowed


def test_files_in_shared_memory_that_are_mapped_are_removed_and_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mpi_launcher, "SEGMENT_PREFIX", f"{tmp_path}/sm_segment.")
    mine, others = tmp_path / "sm_segment.host.0.1a.0", tmp_path / "sm_segment.host.0.2b.0"
    for path in (mine, others):
        path.touch()
    place = "7f0000000000-7f0000001000 rw-s 00000000 00:1d 12345"
    gone = f"{place} {tmp_path}/sm_segment.host.0.1a.1 (deleted)"
    lines = [f"{place} {mine}", f"{place} {mine}", gone, f"{place} /usr/lib/libc.so.6", f"{place} /not\udcffUTF-8", ""]
    (tmp_path / "maps").write_bytes(os.fsencode("\n".join(lines)))
    remove_segments(tmp_path / "maps")
    assert (mine.exists(), others.exists()) == (False, True)
    remove_segments(tmp_path / "no maps")


# Starts ranks in a thread, as Open MPI's daemon on a second host does.
DAEMON = """
import os, subprocess, sys, threading
def start():
    ranks = [subprocess.Popen([sys.executable, "-c", *sys.argv[1:]]) for _ in range(2)]
    for _ in ranks:
        os.wait()
thread = threading.Thread(target=start)
thread.start()
thread.join()
"""
STARTING_RANK = """
import os, signal, sys
from partrain.parallel.mpi import launcher
launcher.FORKED_SECONDS, launcher.START_SECONDS = map(float, sys.argv[1:])
variables = {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}
with launcher.removing_segments_at_end(variables, elastic=True):
    os.write(1, b"%d\\n" % os.getpid())
    signal.pause()
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs process descriptors")
@pytest.mark.parametrize(
    ("limits", "one_dies", "why"),
    [
        (("0.1", "600"), True, "a rank ended while MPI started, so MPI cannot start"),
        (("600", "0.5"), False, "MPI has not started after 0.5 s; a rank of another host may have ended"),
    ],
)
def test_ranks_of_an_elastic_job_do_not_wait_for_a_rank_that_died_before_mpi_started(
    limits: tuple[str, str], one_dies: bool, why: str
) -> None:
    command = [sys.executable, "-c", DAEMON, STARTING_RANK, *limits]
    with subprocess.Popen(command, stdout=-1, stderr=-1, text=True, cwd=ROOT) as daemon:
        assert daemon.stdout is not None
        ranks = [int(daemon.stdout.readline()) for _ in range(2)]
        if one_dies:
            os.kill(ranks[0], signal.SIGKILL)
        said = daemon.communicate(timeout=60)[1]
    assert said.splitlines() == [f"error: {why}; start the job again"] * (1 if one_dies else 2)


STUBBORN = """
import signal
def count(number, frame):
    global left
    left -= 1
    if not left:
        raise SystemExit(1)
left = int(input())
signal.signal(signal.SIGTERM, count)
print("ready", flush=True)
while True:
    signal.pause()
"""


@pytest.mark.parametrize(("patience", "exit_code"), [(3, 1), (9, -signal.SIGKILL)])
def test_launcher_that_does_not_end_is_ended_by_a_process_that_its_own_end_ends(
    patience: int, exit_code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with subprocess.Popen([sys.executable, "-c", STUBBORN], text=True, stdin=-1, stdout=-1) as launcher:
        assert launcher.stdin is not None
        assert launcher.stdout is not None
        print(patience, file=launcher.stdin, flush=True)
        assert launcher.stdout.readline() == "ready\n"
        assert end_launcher(launcher.pid) is None, "it is not called as mpiexec is"
        monkeypatch.setattr(mpi_launcher, "LAUNCHER", Path(f"/proc/{launcher.pid}/comm").read_text().strip())
        monkeypatch.setattr(mpi_launcher, "KILL_SEQUENCE", [(0.1, number) for _, number in mpi_launcher.KILL_SEQUENCE])
        process = end_launcher(launcher.pid)
        assert launcher.wait(60) == exit_code
    assert process is not None
    assert os.waitpid(process, 0)[1] == 0
