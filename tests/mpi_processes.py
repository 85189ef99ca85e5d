"""`mpiexec … partrain --engine mpi` for tests, on this machine."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.processes import ProcessEntry, list_processes
from tests.program import PartrainProcess

# The launcher of the environment that the tests run in comes first: it fits the mpi4py there.
_BESIDE_PYTHON = Path(sys.executable).with_name("mpiexec")
MPIEXEC = str(_BESIDE_PYTHON) if _BESIDE_PYTHON.exists() else shutil.which("mpiexec")

needs_mpi = pytest.mark.skipif(
    MPIEXEC is None or importlib.util.find_spec("mpi4py") is None,
    reason="mpiexec or mpi4py is missing: pip install 'partrain[mpi]'",
)


def segments() -> set[Path]:
    """Return the files in shared memory through which the ranks of all jobs on this host communicate."""
    return set(Path("/dev/shm").glob("sm_segment.*"))


def mapped_by(processes: Iterable[int]) -> set[Path]:
    """Return the segments that one of the processes has mapped."""
    maps = ""
    for pid in processes:
        with contextlib.suppress(OSError):  # it has ended
            maps += Path(f"/proc/{pid}/maps").read_text()
    return {path for path in segments() if f"{path}\n" in maps}


@contextlib.contextmanager
def isolated_jobs() -> Iterator[dict[str, str]]:
    """Yield the environment of jobs that run at the same time as jobs of other tests; clean up after killed jobs.

    A job that ends removes Open MPI's directory of all jobs if it is empty, even if another job is just starting. So
    each test has a directory of its own.
    """
    before = segments()
    with tempfile.TemporaryDirectory(prefix="mpi-", ignore_cleanup_errors=True) as sessions:
        yield {
            "OMPI_ALLOW_RUN_AS_ROOT": "1",  # tests in a container run as root
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "PRTE_MCA_prte_tmpdir_base": sessions,
        }
    unused = segments() - before
    for _ in range(3):  # a rank of another test may have created its segment, but not mapped it yet
        if unused:
            time.sleep(0.1)
            unused -= mapped_by(entry.pid for entry in list_processes())
    for path in unused:
        path.unlink(missing_ok=True)


def mpiexec(num_ranks: int, *options: str) -> list[str]:
    """Return what stands before a rank's own command."""
    assert MPIEXEC is not None
    return [MPIEXEC, "-n", str(num_ranks), "--map-by", ":OVERSUBSCRIBE", *options]


def ranks_of(process: PartrainProcess) -> list[ProcessEntry]:
    """Return the ranks: the processes that mpiexec has started, in their order."""
    return [entry for entry in process.processes() if entry.parent == process.popen.pid]


def workers_of(process: PartrainProcess, rank: int) -> list[int]:
    """Return the workers of the rank with this process id."""
    entries = process.processes()
    servers = {entry.pid for entry in entries if entry.parent == rank and "forkserver" in entry.command}
    return [entry.pid for entry in entries if entry.parent in servers]


class MpiJobs:
    """Starts jobs of several ranks in a folder."""

    def __init__(self, start: Callable[..., PartrainProcess], environment: dict[str, str]) -> None:
        self._start, self._environment = start, environment

    def start(self, num_ranks: int, *arguments: object, **options: Any) -> PartrainProcess:
        """Start `partrain … --engine mpi` on so many ranks."""
        env = self._environment | options.pop("env", {})
        wrapper: Sequence[str] = options.pop("wrapper", mpiexec(num_ranks))
        return self._start(*arguments, "--engine", "mpi", env=env, wrapper=wrapper, **options)
