"""Runs work in a detached child process that survives the killing of this one."""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections.abc import Callable

# A forked child has only the thread that forked. If another thread held a lock at that moment, the child waits for it
# forever. After this time the parent kills the child and does the work itself.
TIMEOUT_SECONDS = 60.0
# After this time the child usually ends itself, in case its parent has died.
LIFETIME_SECONDS = 600.0
POLL_SECONDS = 0.005


def fork_detached(work: Callable[[], object], lifetime_s: float = LIFETIME_SECONDS) -> int:
    """Start work in a forked child that signals to this process or its process group do not reach.

    The child has no standard input or output, so nothing that waits for the end of this process's output waits for it.

    Parameters
    ----------
    work : called in the child. The child's exit code is 0, or the errno of an OSError that the work raised. On any
        other exception the child kills itself.
    lifetime_s : after this time the child ends itself; 0: never.

    Returns
    -------
    The child's process id.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking a process with threads
        child = os.fork()
    if child == 0:
        _work_and_exit(work, lifetime_s)
    return child


def run_detached(work: Callable[[], object]) -> None:
    """Do some work and return when it is done; if this process is killed meanwhile, the work is still completed.

    If there may be no further process, this process does the work itself.

    Parameters
    ----------
    work : writes files, and has no other effect that this process should see.

    Raises
    ------
    OSError : the work raised it, with this errno.
    """
    try:
        child = fork_detached(work)
    except BlockingIOError:  # the limit on processes is reached
        work()
        return
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            work()
            return
        time.sleep(POLL_SECONDS)
    exit_code = os.waitstatus_to_exitcode(ended[1])
    if exit_code < 0:
        work()
    elif exit_code > 0:
        raise OSError(exit_code, os.strerror(exit_code))


def _work_and_exit(work: Callable[[], object], lifetime_s: float) -> None:
    number = 0
    try:
        os.setsid()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, lifetime_s)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        work()
    except OSError as error:
        number = error.errno or 1
    except BaseException:
        os.kill(os.getpid(), signal.SIGKILL)  # the parent repeats the work, so that the error is seen
    os._exit(number)
