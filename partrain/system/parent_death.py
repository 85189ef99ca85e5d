"""Signals to a process when its parent ends, for whatever reason (Linux: PR_SET_PDEATHSIG)."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

# The environment variable with the coordinator's process id, for the fork server.
PARENT_VARIABLE = "PARTRAIN_COORDINATOR"

# From <linux/prctl.h>.
PR_SET_PDEATHSIG = 1


def end_with_parent(parent_pid: int) -> None:
    """Ask the kernel to kill this process when its parent ends; if the parent has ended already, exit.

    On systems other than Linux this does nothing: there, processes end when their pipes close.

    Parameters
    ----------
    parent_pid : the parent's process id, to check whether it is still alive.
    """
    if _set_parent_death_signal(signal.SIGKILL) and os.getppid() != parent_pid:
        os._exit(1)


def continue_after_parent() -> None:
    """Ask the kernel to continue this process, if it is stopped, when its parent ends.

    A stopped process would not see that its pipe has closed. On systems other than Linux this does nothing.
    """
    _set_parent_death_signal(signal.SIGCONT)


def _set_parent_death_signal(number: int) -> bool:
    """Ask the kernel for a signal at the end of the parent; return whether the system supports that."""
    if sys.platform != "linux":
        return False
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
    return True
