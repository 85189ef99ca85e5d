"""What MPI's launcher (mpiexec, srun) does to a process that it starts, and what of it workers must not inherit."""

from __future__ import annotations

import os
from collections.abc import Mapping

# The launcher tells a rank who it is by variables with these beginnings. A worker that had them would take itself
# for that rank, should any library in it look.
PREFIXES = ("OMPI_", "OPAL_", "PMIX_", "PRTE_", "PMI_", "MPI_LOCAL", "MPIEXEC_", "HYDRA_", "I_MPI_")

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
