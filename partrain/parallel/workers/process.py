"""A worker's process, and proof of its end.

`multiprocessing` learns from the fork server that a child has ended. If the fork server was killed, it reports the
child as dead although the child may be alive, and may write into a later step. So an end is confirmed through the
child's own process descriptor (pidfd), where the system has them (Linux).
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

# How long the fork server may take to report the exit code of its child. The end itself is certain without it.
EXIT_CODE_SECONDS = 1.0

# The exit code that `multiprocessing` reports if the fork server has died.
_EXIT_CODE_UNKNOWN = 255


class WorkerProcess:
    """A process that was started by `multiprocessing`.

    Parameters
    ----------
    process : started; this object owns it from now on.
    """

    def __init__(self, process: BaseProcess) -> None:
        assert process.pid is not None
        self.pid = process.pid
        self._process = process
        self._num_oom_kills = num_oom_kills()
        self._cause: str | None = None
        self._descriptor: int | None = None
        # Fails if the system has no process descriptors, or the process is dead already; `_wait` then uses the pid.
        with contextlib.suppress(OSError, AttributeError):
            self._descriptor = os.pidfd_open(self.pid)

    def end(self, timeout_s: float) -> str:
        """Wait for the end of the process, whose pipe is closed, and kill it after `timeout_s`; return the cause.

        Parameters
        ----------
        timeout_s : how long it may take to end by itself; 0: kill it at once.

        Raises
        ------
        FailedRun
            It cannot be killed.
        """
        if self._cause is None:
            was_killed = not self._wait(timeout_s)
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
            return "died of an unknown cause, because the fork server died before it could report it"
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
        """Wait for the end of the process; return whether it has ended."""
        if self._descriptor is not None:
            return bool(wait([self._descriptor], seconds))
        deadline = time.monotonic() + seconds
        self._process.join(seconds)
        while not self._pid_is_free():
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.01)
        return True

    def _pid_is_free(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # the pid belongs to a process of another user by now
            return True
        return False

    def _exit_code(self) -> int | None:
        """Return the exit code of the ended process, or None if it is unknown."""
        self._process.join(EXIT_CODE_SECONDS)
        if self._process.exitcode is None:
            # The fork server is stopped, and `multiprocessing` would wait for it at the end of this program.
            kill_fork_server()
            self._process.join()
        exit_code = self._process.exitcode
        self._process.close()
        return None if exit_code == _EXIT_CODE_UNKNOWN else exit_code
