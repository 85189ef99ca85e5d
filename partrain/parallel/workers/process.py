"""A worker's process, and the certainty of its end.

`multiprocessing` hears of the end of a fork server's child from the fork server. If that was killed, it takes the
child for dead while it lives, and may write into a later step. So an end is confirmed by the child's own process
descriptor, where the system has them (Linux).
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

from partrain.errors import FailedRun
from partrain.parallel.workers.fork_server import KILLED_SECONDS, kill_fork_server
from partrain.system.machine import num_oom_kills

# How long the fork server may take to tell how its child ended; without it, the end is still certain.
EXIT_CODE_SECONDS = 1.0

# What `multiprocessing` says when the fork server did not live to tell.
_EXIT_CODE_UNKNOWN = 255


class WorkerProcess:
    """A process that was started by `multiprocessing`.

    Parameters
    ----------
    process : started; it is this object's from now on.
    """

    def __init__(self, process: BaseProcess) -> None:
        assert process.pid is not None
        self.pid = process.pid
        self._process = process
        self._num_oom_kills = num_oom_kills()
        self._cause: str | None = None
        self._descriptor: int | None = None
        # Without descriptors, or if it is dead already: `_wait` then asks for the number.
        with contextlib.suppress(OSError, AttributeError):
            self._descriptor = os.pidfd_open(self.pid)

    def end(self, patience_s: float) -> str:
        """Return what the process died of; its pipe is closed, and if it does not end by that, it is killed.

        Parameters
        ----------
        patience_s : how long it may take to end by itself; 0: it is killed at once.

        Raises
        ------
        FailedRun
            It cannot be killed.
        """
        if self._cause is None:
            was_killed = not self._wait(patience_s)
            if was_killed:
                self._kill()
                if not self._wait(KILLED_SECONDS):
                    raise FailedRun(f"process {self.pid} does not end although it was killed; the kernel holds it")
            exit_code = self._exit_code()
            self._cause = "did not end with its pipe and was killed" if was_killed else self._describe(exit_code)
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None
        return self._cause

    def _describe(self, exit_code: int | None) -> str:
        if exit_code is None:
            return "died, it is not known of what, for the fork server did not live to tell"
        if exit_code < 0:
            name = signal.Signals(-exit_code).name
            out_of_memory = name == "SIGKILL" and num_oom_kills() > self._num_oom_kills
            return f"was killed by {name}" + (" (probably out of memory)" if out_of_memory else "")
        return f"ended with exit code {exit_code}"

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self._descriptor is None:
                os.kill(self.pid, signal.SIGKILL)
            else:
                signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)

    def _wait(self, seconds: float) -> bool:
        """Wait for the end of the process; return whether it came."""
        if self._descriptor is not None:
            return bool(wait([self._descriptor], seconds))
        deadline = time.monotonic() + seconds
        self._process.join(seconds)
        while not self._number_is_free():
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.01)
        return True

    def _number_is_free(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # it is another's process by now
            return True
        return False

    def _exit_code(self) -> int | None:
        """Return the exit code of the ended process, or None if nobody knows it."""
        self._process.join(EXIT_CODE_SECONDS)
        if self._process.exitcode is None:
            # The fork server is stopped, and `multiprocessing` would wait for it when this program ends.
            kill_fork_server()
            self._process.join()
        exit_code = self._process.exitcode
        self._process.close()
        return None if exit_code == _EXIT_CODE_UNKNOWN else exit_code
