"""What MPI's launcher (mpiexec, srun) does to a process that it starts, and what of it workers must not inherit."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

# The launcher tells a rank who it is by variables with these beginnings. A worker that had them would take itself
# for that rank, should any library in it look.
PREFIXES = ("OMPI_", "OPAL_", "PMIX_", "PRTE_", "PMI_", "MPI_LOCAL", "MPIEXEC_", "HYDRA_", "I_MPI_")

# What Open MPI's files in shared memory are called.
SEGMENTS = "/dev/shm/sm_segment."

# How many processes were started, as Open MPI, MPICH's family, and Slurm say it.
SIZE_VARIABLES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")


def launcher_variables(environment: Mapping[str, str]) -> list[str]:
    """Return the names of the variables that are for the rank alone."""
    return [name for name in environment if name.startswith(PREFIXES)]


def promised_ranks(environment: Mapping[str, str]) -> tuple[str, int] | None:
    """Return the variable that says that more than one process was started, and its number; None if none does."""
    for name in SIZE_VARIABLES:
        value = environment.get(name, "")
        if value.isdecimal() and int(value) > 1:
            return name, int(value)
    return None


def undo_binding(environment: Mapping[str, str]) -> None:
    """Let this process use all processors that the host allows it, if Open MPI's launcher started it.

    Open MPI binds a rank to one core, or to a socket, and all that the rank starts inherits this: eight workers would
    take turns on one core. What a control group or Slurm's allows stays the limit: the kernel sees to that.
    """
    if hasattr(os, "sched_setaffinity") and "OMPI_COMM_WORLD_RANK" in environment:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


def remove_segments(maps: Path = Path("/proc/self/maps")) -> None:
    """Remove the files of Open MPI in shared memory that this process has mapped: those of its job, and no other's.

    That is mpiexec's to do. Where it was killed, nobody else does it, and no later start can tell whose they are.

    Parameters
    ----------
    maps : where the system says what is mapped.
    """
    with contextlib.suppress(OSError):
        for path in {line[line.index(SEGMENTS) :] for line in maps.read_text().splitlines() if SEGMENTS in line}:
            with contextlib.suppress(FileNotFoundError):  # another rank was quicker
                os.unlink(path)
