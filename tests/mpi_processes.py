"""`mpiexec … partrain --engine mpi` for tests, on this machine."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.processes import ProcessEntry
from tests.program import PartrainProcess

# The launcher of the environment that the tests run in comes first: it fits the mpi4py there.
_BESIDE_PYTHON = Path(sys.executable).with_name("mpiexec")
MPIEXEC = str(_BESIDE_PYTHON) if _BESIDE_PYTHON.exists() else shutil.which("mpiexec")

# Tests of MPI run one after the other: they look for files that Open MPI leaves in shared memory.
MPI_MARKS = (
    pytest.mark.xdist_group("mpi"),
    pytest.mark.skipif(
        MPIEXEC is None or importlib.util.find_spec("mpi4py") is None,
        reason="mpiexec or mpi4py is missing: pip install 'partrain[mpi]'",
    ),
)

# Root is who runs tests in a container.
ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
}
SHARED_MEMORY = Path("/dev/shm")


def needs_mpi(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that needs MPI."""
    for mark in MPI_MARKS:
        test = mark(test)
    return test


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

    def __init__(self, start: Callable[..., PartrainProcess], at_end: contextlib.ExitStack) -> None:
        self._start, self._at_end = start, at_end

    def start(self, num_ranks: int, *arguments: object, **options: Any) -> PartrainProcess:
        """Start `partrain … --engine mpi` on so many ranks."""
        # A job that ends removes the directory of all jobs if it finds it empty, also under a job that just begins.
        sessions = tempfile.mkdtemp(prefix="mpi-")
        self._at_end.callback(shutil.rmtree, sessions, ignore_errors=True)
        env = ENVIRONMENT | {"PRTE_MCA_prte_tmpdir_base": sessions} | options.pop("env", {})
        wrapper: Sequence[str] = options.pop("wrapper", mpiexec(num_ranks))
        return self._start(*arguments, "--engine", "mpi", env=env, wrapper=wrapper, **options)
