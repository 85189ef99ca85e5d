"""What an MPI launcher (mpiexec, srun) does to the processes that it starts, and how to undo it for workers."""

from __future__ import annotations

import contextlib
import glob
import json
import mmap
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from multiprocessing.connection import wait
from pathlib import Path
from typing import NoReturn

from partrain.errors import ConfigError
from partrain.parallel.mpi import liveness
from partrain.system.detached_work import fork_detached

# The launcher identifies a rank by environment variables with these prefixes. If a worker inherited them, a library
# that looks at them would take the worker for the rank.
VARIABLE_PREFIXES = ("OMPI_", "OPAL_", "PMIX_", "PRTE_", "PMI_", "MPI_LOCAL", "MPIEXEC_", "HYDRA_", "I_MPI_")

# The prefix of Open MPI's files in shared memory.
SEGMENT_PREFIX = "/dev/shm/sm_segment."

# While MPI starts: how often a watching process looks for such files, and how long a rank may go on without mpiexec. It
# then waits for answers that never come.
LOOK_SECONDS = 0.02
STUCK_SECONDS = 30.0
# In an elastic job: how long the launcher may take to start all ranks of a host, and MPI to start. Until then a rank
# only imports modules.
FORKED_SECONDS = 2.0
START_SECONDS = 300.0

# How often a heartbeat is looked at.
BEAT_SECONDS = 1.0

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


def require_working_ranks(num_spares: int, num_ranks: int) -> None:
    """Check that ranks are left to work besides the spares.

    Raises
    ------
    ConfigError
        All ranks would be spares.
    """
    if num_spares >= num_ranks:
        started = "only 1 rank" if num_ranks == 1 else f"only {num_ranks} ranks"
        raise ConfigError(f"--spares {num_spares}: mpiexec started {started}, and at least one must work")


def undo_binding(environment: Mapping[str, str]) -> None:
    """Let this process use all processors that the host allows, if Open MPI's launcher started it.

    Open MPI binds a rank to one core or socket, and the rank's children inherit the binding: eight workers would take
    turns on one core. The kernel still enforces the limits of control groups, and so those of Slurm.
    """
    if hasattr(os, "sched_setaffinity") and "OMPI_COMM_WORLD_RANK" in environment:
        # Not as many as are online: if some are off, the numbers of the others have gaps.
        os.sched_setaffinity(0, range(os.sysconf("SC_NPROCESSORS_CONF")))


def remove_segments(maps: Path = Path("/proc/self/maps")) -> None:
    """Remove Open MPI's files in shared memory that this process has mapped, which are those of its own job.

    Normally mpiexec removes them. If it was killed, they would stay, and no later process could tell which job they
    belong to.

    Parameters
    ----------
    maps : the kernel's list of mapped files.
    """
    for path in _mapped_segments(maps):
        with contextlib.suppress(FileNotFoundError):  # another rank was quicker
            path.unlink()


def _mapped_segments(maps: Path) -> dict[Path, int]:
    """Return Open MPI's files that a process has mapped and that have a name, with their inode numbers."""
    found: dict[Path, int] = {}
    with contextlib.suppress(OSError):  # the process has ended
        for line in os.fsdecode(maps.read_bytes()).split("\n"):
            *_, inode, path = line.split(maxsplit=5) if SEGMENT_PREFIX in line else ("", "")
            if path.startswith(SEGMENT_PREFIX) and not path.endswith(" (deleted)"):
                found[Path(path)] = int(inode)
    return found


@contextlib.contextmanager
def removing_segments_at_end(environment: Mapping[str, str], *, elastic: bool = False) -> Iterator[Heartbeat | None]:
    """Start MPI in the block; a detached process removes its files in shared memory if mpiexec does not.

    If mpiexec is killed while MPI starts, MPI ends the ranks at once and leaves the files. The process looks which
    files this rank maps. It removes them when this rank and mpiexec have ended, and the one that this rank created even
    if it was mapped only for an instant.

    Parameters
    ----------
    environment : the variables of this process; they tell whether it is a rank of Open MPI.
    elastic : whether mpiexec does not end the other ranks when one ends. MPI would then never start, so the detached
        process ends this rank.

    Yields
    ------
    In an elastic job, the heartbeat of this rank: if it stops, the detached process kills this rank, whose work the
    others then take over. A rank that was only stopped can so not wake up and write into the run of its successor.
    """
    heartbeat = Heartbeat() if elastic else None
    try:
        if "OMPI_COMM_WORLD_RANK" not in environment:
            raise ProcessLookupError
        rank = os.pidfd_open(os.getpid())
        # If mpiexec has ended, the parent is another process, which may live on.
        launcher = os.pidfd_open(os.getppid() if os.getppid() > 1 else os.getpid())
    except (OSError, AttributeError):  # no rank, mpiexec has ended, or the system has no process descriptors
        yield heartbeat
        return
    started, starting = os.pipe()
    siblings = _Siblings(os.getppid(), environment) if elastic else None
    maps, began, own = Path(f"/proc/{os.getpid()}/maps"), time.time(), own_segment(environment)

    def watch() -> None:
        os.close(starting)
        segments = _await_end(maps, started, rank, launcher, siblings)
        if heartbeat is not None:
            heartbeat.kill_when_it_stops(rank)
        wait([rank])
        for path in glob.glob(own) if own else ():
            with contextlib.suppress(OSError):  # mpiexec was quicker
                if (status := os.stat(path)).st_ctime >= began:
                    segments[Path(path)] = status.st_ino
        wait([launcher])
        _remove(segments)

    with contextlib.suppress(BlockingIOError):  # the limit on processes is reached: MPI starts unwatched
        fork_detached(watch, lifetime_s=0.0)
    for descriptor in (rank, launcher, started):
        os.close(descriptor)
    try:
        yield heartbeat
    finally:
        with contextlib.suppress(BrokenPipeError), open(starting, "w") as pipe:
            json.dump({str(path): inode for path, inode in _mapped_segments(maps).items()}, pipe)


def own_segment(environment: Mapping[str, str]) -> str | None:
    """Return a pattern for the file that a rank of Open MPI 5 creates; None if the variables do not tell.

    The name ends in the user, the job and the rank. The job's number is a hash of its name.
    Source: Open MPI 5.0, opal/mca/btl/sm (sm_segment) and opal_pmix_convert_nspace; the hash is Jenkins' one-at-a-time.
    """
    job, _, number = environment.get("PMIX_NAMESPACE", "").rpartition("@")
    local_rank = environment.get("OMPI_COMM_WORLD_LOCAL_RANK", "")
    if not (job and number.isdecimal() and local_rank.isdecimal()):
        return None
    value = 0
    for byte in job.encode():
        value = (value + byte) * 1025 & 0xFFFFFFFF
        value ^= value >> 6
    value = value * 9 & 0xFFFFFFFF
    value = (value ^ value >> 11) * 32769 & 0xFFFFFFFF
    job_id = (value >> 16 ^ value & 0xFFFF) << 16 | int(number)
    return f"{SEGMENT_PREFIX}*.{os.geteuid()}.{job_id:x}.{local_rank}"


class Heartbeat:
    """Shows another process that a rank runs.

    It is counted in memory that processes share which are forked after this was made.
    """

    def __init__(self) -> None:
        self._count = mmap.mmap(-1, 8)

    def beat(self) -> None:
        """Show that the rank runs; to be called several times in each BEAT_SECONDS."""
        self._count[:] = ((int.from_bytes(self._count[:], "little") + 1) % 2**64).to_bytes(8, "little")

    def kill_when_it_stops(self, rank: int) -> None:
        """Return when the rank, a process descriptor, has ended; kill it when it has not beaten for SILENT_SECONDS.

        Only intervals in which this process runs count: a batch system stops all processes of a job.
        """
        last, silent_s = b"", 0.0
        while not wait([rank], BEAT_SECONDS):
            silent_s = silent_s + BEAT_SECONDS if self._count[:] == last else 0.0
            last = self._count[:]
            if silent_s > liveness.SILENT_SECONDS:
                signal.pidfd_send_signal(rank, signal.SIGKILL)
                return


class _Siblings:
    """The ranks that a launcher has started on this host, while MPI starts.

    Parameters
    ----------
    launcher : its process id.
    environment : the variables of a rank; they tell how many there are.
    """

    def __init__(self, launcher: int, environment: Mapping[str, str]) -> None:
        self._threads = Path(f"/proc/{launcher}/task")
        number = environment.get("OMPI_COMM_WORLD_LOCAL_SIZE", "")
        self._number = int(number) if number.isdecimal() else 0
        self._looked_at, self._waited_s = time.monotonic(), 0.0

    def why_mpi_cannot_start(self) -> str | None:
        """Return why MPI will not start: a rank has ended. Must be called often: a longer pause is no waiting."""
        moment, self._looked_at = time.monotonic() - self._looked_at, time.monotonic()
        if moment < liveness.MOMENT_SECONDS:
            self._waited_s += moment
        if self._waited_s > START_SECONDS:
            return f"MPI has not started after {START_SECONDS:g} s; a rank of another host may have ended"
        try:
            # Not its main thread alone: the daemon of another host starts them in any.
            number = sum(len(path.read_text().split()) for path in self._threads.glob("*/children"))
        except OSError:  # the launcher has ended
            return None
        if number < self._number and self._waited_s > FORKED_SECONDS:
            return "a rank ended while MPI started, so MPI cannot start"
        return None


def _await_end(maps: Path, started: int, rank: int, launcher: int, siblings: _Siblings | None) -> dict[Path, int]:
    """Wait until MPI has started or the rank has ended; return the segments that the rank has mapped.

    Parameters
    ----------
    maps : the kernel's list of the rank's mapped files.
    rank, launcher : process descriptors of the rank and of its launcher.
    started : the end of a pipe through which the rank sends its segments when MPI has started.
    siblings : if MPI cannot start because one of them has ended, this rank is ended, too.
    """
    segments: dict[Path, int] = {}
    orphaned_at = None
    while not wait([started, rank], LOOK_SECONDS):
        segments |= _mapped_segments(maps)
        if orphaned_at is None and wait([launcher], 0):
            orphaned_at = time.monotonic()
        if siblings is not None and (why := siblings.why_mpi_cannot_start()):
            with contextlib.suppress(OSError), open(maps.parent / "fd" / "2", "a") as stderr:
                stderr.write(f"error: {why}; start the job again\n")
            signal.pidfd_send_signal(rank, signal.SIGKILL)
            break
        if orphaned_at is not None and time.monotonic() > orphaned_at + STUCK_SECONDS:
            signal.pidfd_send_signal(rank, signal.SIGKILL)
            break
    with open(started) as pipe, contextlib.suppress(ValueError):  # the rank was killed while MPI started
        segments |= {Path(path): inode for path, inode in json.load(pipe).items()}
    return segments


def _remove(segments: Mapping[Path, int]) -> None:
    for path, inode in segments.items():
        with contextlib.suppress(OSError):  # mpiexec or another rank was quicker
            # Not a file of the same name that belongs to another job: if that is just starting, it would hang.
            if path.stat().st_ino == inode:
                path.unlink()


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
        # mpiexec waits until this rank's output is closed. Helpers that inherited it live as long as their pipes.
        os.closerange(3, launcher)
        os.closerange(launcher + 1, os.sysconf("SC_OPEN_MAX"))
        for seconds, number in KILL_SEQUENCE:
            if wait([launcher], seconds):
                return
            signal.pidfd_send_signal(launcher, number)

    try:
        return fork_detached(end_gradually)
    except BlockingIOError:  # the limit on processes is reached
        return None
    finally:
        os.close(launcher)


def exit_without_mpi(launcher: int, exit_code: int) -> NoReturn:
    """End this process without MPI's finalisation, which would wait for dead ranks.

    Parameters
    ----------
    launcher : the process id of mpiexec, or of its daemon on this host.
    """
    end_launcher(launcher)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # it is closed
            stream.flush()
    os._exit(exit_code)
