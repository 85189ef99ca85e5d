"""Work that outlives this process, where somebody is about to kill it and all that belong to it."""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections.abc import Callable

# A fork has one thread of many. Should another one have held a lock just then, the fork would wait for it for ever:
# after this time it is given up, and the work is done here.
PATIENCE_SECONDS = 60.0
# After this time the fork ends, also if nobody is left to give it up.
LIFETIME_SECONDS = 600.0
LOOK_SECONDS = 0.005


def fork_apart(work: Callable[[], object]) -> int:
    """Begin some work in a fork of this process that a signal to this one, or to its group, does not reach.

    It has no input and no output: whoever waits for the end of this process's output does not wait for the fork.

    Parameters
    ----------
    work : is done in the fork. Its exit code is 0, or the number of the OSError that the work raised; by another
        exception the fork is killed.

    Returns
    -------
    The fork's process id.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks of a process with threads
        child = os.fork()
    if child == 0:
        _work_and_end(work)
    return child


def finish_apart(work: Callable[[], object]) -> None:
    """Do some work, and return when it is done; should this process be killed meanwhile, it is done all the same.

    Parameters
    ----------
    work : writes files, and does nothing else that should be seen here.

    Raises
    ------
    OSError : the work raised it, with this number.
    """
    child = fork_apart(work)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            work()
            return
        time.sleep(LOOK_SECONDS)
    exit_code = os.waitstatus_to_exitcode(ended[1])
    if exit_code < 0:
        work()
    elif exit_code > 0:
        raise OSError(exit_code, os.strerror(exit_code))


def _work_and_end(work: Callable[[], object]) -> None:
    number = 0
    try:
        os.setsid()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, LIFETIME_SECONDS)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
        work()
    except OSError as error:
        number = error.errno or 1
    except BaseException:
        os.kill(os.getpid(), signal.SIGKILL)  # it is done again where it can be seen
    os._exit(number)
