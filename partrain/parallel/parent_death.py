"""A process that ends with the one that started it, however that one ends."""

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
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(1)
