"""The fork server of `multiprocessing`: it has loaded modules and kernels once, and every worker has them from birth.

It takes a second to start, and nothing here needs Numba: so it can be started before this process loads Numba itself.
"""

from __future__ import annotations

import contextlib
import multiprocessing
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
from partrain.system.signals import SIGNALS_OF_RANKS

# How long a process may take to be gone after it was killed. It takes milliseconds, unless a disk or a file system
# that does not answer holds it in the kernel.
KILLED_SECONDS = 60.0

# Tells the fork server which kernels to load (parallel.workers.preload), as "set:dtype".
PRELOAD_VARIABLE = "PARTRAIN_PRELOAD_KERNELS"

# By its name, for importing it here would do to the coordinator what it does to the fork server. The fork server
# passes over a name that it cannot import, without a word: so a worker says whether it found the module.
PRELOAD_MODULE = "partrain.parallel.workers.preload"

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
)


def start_fork_server(kernels: str, dtype: str) -> None:
    """Start the fork server, if it does not run yet; it loads its modules and kernels while the caller goes on.

    Kernels that are not in the cache yet it does not load. Who compiles them ends it by `end_fork_server`.

    Parameters
    ----------
    kernels, dtype : the kernel set, and the floating-point type, that the workers will need.
    """
    if "forkserver" in multiprocessing.get_all_start_methods():
        with conditions_for_children(kernels, dtype):
            forkserver.set_forkserver_preload([PRELOAD_MODULE])
            forkserver.ensure_running()


def fork_server_pid() -> int | None:
    """Return the process id of the fork server that was started last, or None if there was none."""
    pid: int | None = getattr(forkserver._forkserver, "_forkserver_pid", None)
    return pid


def kill_fork_server() -> None:
    """Kill the fork server, if there is one; its children live on, and the next start of a worker makes another."""
    if (pid := fork_server_pid()) is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def end_fork_server() -> None:
    """Kill the fork server, and return when `multiprocessing` can see that it is dead: only then it makes another.

    A killed process loses its files some time before; on a busy machine that can be a second.
    """
    kill_fork_server()
    deadline = time.monotonic() + KILLED_SECONDS
    # Seen, and left for `multiprocessing` to see.
    with contextlib.suppress(ChildProcessError):
        while (pid := fork_server_pid()) and not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if time.monotonic() > deadline:
                return
            time.sleep(0.001)


@contextlib.contextmanager
def conditions_for_children(kernels: str, dtype: str) -> Iterator[None]:
    """What the fork server and its workers find at birth, and the coordinator only while it starts them."""
    environment = dict.fromkeys(THREAD_VARIABLES, "1")
    environment[PRELOAD_VARIABLE] = f"{kernels}:{dtype}"
    environment[PARENT_VARIABLE] = str(os.getpid())
    not_inherited = launcher_variables(os.environ)
    before = {name: os.environ.get(name) for name in (*environment, *not_inherited)}
    # The resource tracker is started first: its start unblocks signals.
    multiprocessing.resource_tracker.ensure_running()
    # A signal to the process group must not kill a child before it can ignore it.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS_OF_RANKS)
    # Workers need nothing of the main program; `multiprocessing` would run its file once more in each.
    main_program = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        os.environ.update(environment)
        for name in not_inherited:
            del os.environ[name]
        yield
    finally:
        sys.modules["__main__"] = main_program
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
