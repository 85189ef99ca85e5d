"""What a process is told when the one that started it ends, however that one ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

# Tells the fork server the process id of the coordinator.
PARENT_VARIABLE = "PARTRAIN_COORDINATOR"

# Of Linux, <linux/prctl.h>.
PR_SET_PDEATHSIG = 1


def end_with_parent(parent_pid: int) -> None:
    """Have this process killed when its parent ends; if that has happened already, end now.

    Where the system has no such thing (it is Linux's) this does nothing: pipes that close must do.

    Parameters
    ----------
    parent_pid : the parent's process id, by which is seen whether it still lives.
    """
    if _signal_at_end_of_parent(signal.SIGKILL) and os.getppid() != parent_pid:
        os._exit(1)


def continue_after_parent() -> None:
    """Have this process continued when its parent ends, if it is stopped then: only so can it see its pipe end.

    Where the system has no such thing (it is Linux's) this does nothing.
    """
    _signal_at_end_of_parent(signal.SIGCONT)


def _signal_at_end_of_parent(number: int) -> bool:
    """Ask for a signal; return whether the system knows how."""
    if sys.platform != "linux":
        return False
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
    return True
