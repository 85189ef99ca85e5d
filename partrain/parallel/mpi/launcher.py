"""What MPI's launcher (mpiexec, srun) does to a process that it starts, and what of it workers must not inherit."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping
from multiprocessing.connection import wait
from pathlib import Path

from partrain.system.detached_work import fork_apart

# The launcher tells a rank who it is by variables with these beginnings. A worker that had them would take itself
# for that rank, should any library in it look.
PREFIXES = ("OMPI_", "OPAL_", "PMIX_", "PRTE_", "PMI_", "MPI_LOCAL", "MPIEXEC_", "HYDRA_", "I_MPI_")

# What Open MPI's files in shared memory are called.
SEGMENTS = "/dev/shm/sm_segment."

# What Open MPI 5's mpiexec is called while it runs, and what makes it end where nothing else does: it takes the first
# signal as an order that it has already, the second as a warning. Each is sent after so many seconds.
LAUNCHER = "prterun"
LAST_WORDS = ((10.0, signal.SIGTERM), (1.0, signal.SIGTERM), (1.0, signal.SIGTERM), (5.0, signal.SIGKILL))

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


def end_launcher(pid: int) -> int | None:
    """See to it that mpiexec ends, though a host does not answer; for a rank that is about to abort the job.

    Open MPI's waits for the daemon of each host, for ever if that one was stopped or is cut off, and has by then killed
    the ranks that it reaches. So a process of a session of its own looks after it.

    Parameters
    ----------
    pid : who started this rank. Only Open MPI's mpiexec is ended; a daemon may belong to other jobs.

    Returns
    -------
    The process that sees to it; None where there is none.
    """
    try:
        if Path(f"/proc/{pid}/comm").read_text().strip() != LAUNCHER:
            return None
        launcher = os.pidfd_open(pid)
    except (OSError, AttributeError):  # it has ended, or the system has no such thing
        return None

    def look_after() -> None:
        for seconds, number in LAST_WORDS:
            if wait([launcher], seconds):
                return
            signal.pidfd_send_signal(launcher, number)

    process = fork_apart(look_after)
    os.close(launcher)
    return process
