"""What an MPI launcher (mpiexec, srun) does to the processes that it starts, and how to undo it for workers."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping
from multiprocessing.connection import wait
from pathlib import Path

from partrain.system.detached_work import fork_detached

# The launcher identifies a rank by environment variables with these prefixes. If a worker inherited them, a library
# that looks at them would take the worker for the rank.
VARIABLE_PREFIXES = ("OMPI_", "OPAL_", "PMIX_", "PRTE_", "PMI_", "MPI_LOCAL", "MPIEXEC_", "HYDRA_", "I_MPI_")

# The prefix of Open MPI's files in shared memory.
SEGMENT_PREFIX = "/dev/shm/sm_segment."

# The process name of Open MPI 5's mpiexec, and how to end it when it hangs. mpiexec ignores the first SIGTERM when it
# is already shutting down, and only warns on the second. Pairs of delay in seconds and signal.
LAUNCHER = "prterun"
KILL_SEQUENCE = ((10.0, signal.SIGTERM), (1.0, signal.SIGTERM), (1.0, signal.SIGTERM), (5.0, signal.SIGKILL))

# The variables in which Open MPI, the MPICH family and Slurm give the number of processes.
SIZE_VARIABLES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")


def launcher_variables(environment: Mapping[str, str]) -> list[str]:
    """Return the names of the variables that are meant only for the rank."""
    return [name for name in environment if name.startswith(VARIABLE_PREFIXES)]


def promised_ranks(environment: Mapping[str, str]) -> tuple[str, int] | None:
    """Return the variable that announces more than one process, and the number; None if there is none."""
    for name in SIZE_VARIABLES:
        value = environment.get(name, "")
        if value.isdecimal() and int(value) > 1:
            return name, int(value)
    return None


def undo_binding(environment: Mapping[str, str]) -> None:
    """Let this process use all processors that the host allows, if Open MPI's launcher started it.

    Open MPI binds a rank to one core or socket, and the rank's children inherit the binding: eight workers would take
    turns on one core. The kernel still enforces the limits of control groups, and so those of Slurm.
    """
    if hasattr(os, "sched_setaffinity") and "OMPI_COMM_WORLD_RANK" in environment:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


def remove_segments(maps: Path = Path("/proc/self/maps")) -> None:
    """Remove Open MPI's files in shared memory that this process has mapped, which are those of its own job.

    Normally mpiexec removes them. If it was killed, they would stay, and no later process could tell which job they
    belong to.

    Parameters
    ----------
    maps : the kernel's list of mapped files.
    """
    with contextlib.suppress(OSError):
        for path in {
            line[line.index(SEGMENT_PREFIX) :] for line in maps.read_text().splitlines() if SEGMENT_PREFIX in line
        }:
            with contextlib.suppress(FileNotFoundError):  # another rank was quicker
                os.unlink(path)


def end_launcher(pid: int) -> int | None:
    """Make sure that mpiexec ends although a host does not answer; for a rank that is about to abort the job.

    Open MPI's mpiexec waits for the daemon of each host, forever if that daemon is stopped or unreachable. By then it
    has killed all reachable ranks, this one too, so a detached process must end mpiexec.

    Parameters
    ----------
    pid : the parent of this rank. Only Open MPI's mpiexec is ended: a daemon may belong to other jobs.

    Returns
    -------
    The id of the detached process, or None if it is not needed or not possible.
    """
    try:
        if Path(f"/proc/{pid}/comm").read_text().strip() != LAUNCHER:
            return None
        launcher = os.pidfd_open(pid)
    except (OSError, AttributeError):  # it has ended, or the system has no process descriptors
        return None

    def end_gradually() -> None:
        for seconds, number in KILL_SEQUENCE:
            if wait([launcher], seconds):
                return
            signal.pidfd_send_signal(launcher, number)

    process = fork_detached(end_gradually)
    os.close(launcher)
    return process
