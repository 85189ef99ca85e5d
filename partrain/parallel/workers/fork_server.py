"""The fork server of `multiprocessing`: it loads modules and kernels once, and every worker inherits them.

It takes a second to start. Nothing here needs Numba, so it can be started before this process loads Numba itself.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.process
import multiprocessing.resource_tracker
import os
import signal
import sys
import time
import types
from collections.abc import Iterator
from multiprocessing import forkserver

from partrain.parallel.mpi.launcher import launcher_variables
from partrain.system.parent_death import PARENT_VARIABLE
from partrain.system.process_directory import process_directory
from partrain.system.process_limits import reporting_process_limit
from partrain.system.signals import SIGNALS_OF_RANKS

# How long a killed process may take to disappear. It takes milliseconds, unless the kernel holds the process because a
# disk or a file system does not answer.
KILLED_SECONDS = 60.0

# Tells the fork server which kernels to load, as "set:dtype" (see parallel.workers.preload).
PRELOAD_VARIABLE = "PARTRAIN_PRELOAD_KERNELS"

# A name and not the module: importing it here would change the coordinator. The fork server silently ignores a module
# that it cannot import, so each worker reports whether the module was loaded.
PRELOAD_MODULE = "partrain.parallel.workers.preload"

# The exit code of a fork server that may not fork, because the limit on processes is reached.
MAY_NOT_FORK = os.EX_TEMPFAIL

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
)


def start_fork_server(kernels: str, dtype: str) -> None:
    """Start the fork server if it does not run; it loads its modules and kernels in the background.

    It loads only kernels that are in the cache. A caller that compiles kernels afterwards must end the fork server
    with `end_fork_server`.

    Parameters
    ----------
    kernels, dtype : the kernel set and the floating-point type that the workers will need.

    Raises
    ------
    ResourceError
        The limit on processes is reached.
    """
    if "forkserver" in multiprocessing.get_all_start_methods():
        with reporting_process_limit(), child_environment(kernels, dtype):
            forkserver.set_forkserver_preload([PRELOAD_MODULE])
            forkserver.ensure_running()


def fork_server_pid() -> int | None:
    """Return the process id of the fork server that was started last, or None if there was none."""
    pid: int | None = getattr(forkserver._forkserver, "_forkserver_pid", None)
    return pid


def kill_fork_server() -> None:
    """Kill the fork server, if there is one. Its children survive; the next start of a worker starts a new one."""
    if (pid := fork_server_pid()) is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def end_fork_server() -> int | None:
    """Kill the fork server, and return when `multiprocessing` can see that it is dead; only then it starts a new one.

    A killed process closes its files some time before it can be waited for; on a busy machine that can be a second.

    Returns
    -------
    The exit code of a fork server that had ended by itself; None if it was killed.
    """
    kill_fork_server()
    deadline = time.monotonic() + KILLED_SECONDS
    # WNOWAIT leaves the exit status for `multiprocessing` to collect.
    with contextlib.suppress(ChildProcessError):
        while (pid := fork_server_pid()) and time.monotonic() < deadline:
            ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is not None:
                return ended.si_status if ended.si_code == os.CLD_EXITED else None
            time.sleep(0.001)
    return None


@contextlib.contextmanager
def child_environment(kernels: str, dtype: str) -> Iterator[None]:
    """Change this process, for as long as it starts children, to what the fork server and workers should inherit."""
    directory = str(process_directory())
    environment = dict.fromkeys(THREAD_VARIABLES, "1")
    environment[PRELOAD_VARIABLE] = f"{kernels}:{dtype}"
    environment[PARENT_VARIABLE] = str(os.getpid())
    # `multiprocessing` starts interpreters with -c, which would search the current directory first, and run a file
    # random.py there. They should find modules where this process does.
    environment["PYTHONSAFEPATH"] = "1"
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    not_inherited = launcher_variables(os.environ)
    before = {name: os.environ.get(name) for name in (*environment, *not_inherited)}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    # Workers need nothing of the main program, but `multiprocessing` would run its file once more in each of them.
    main_program = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    # Where the socket of the fork server goes; the directory that `multiprocessing` makes outlives a killed process.
    config = multiprocessing.process.current_process()._config  # type: ignore[attr-defined]
    directory_before = config.get("tempdir")
    config["tempdir"] = directory
    try:
        os.environ.update(environment)
        for name in not_inherited:
            del os.environ[name]
        # The resource tracker must run before signals are blocked: its start unblocks them.
        multiprocessing.resource_tracker.ensure_running()
        # A signal to the process group must not kill a child before the child can ignore it.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS_OF_RANKS)
        yield
    finally:
        config["tempdir"] = directory_before
        sys.modules["__main__"] = main_program
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
