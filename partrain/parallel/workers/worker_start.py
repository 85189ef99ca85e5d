"""Starts worker processes, also when the fork server dies or is stopped meanwhile."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable

from partrain.errors import FailedRun
from partrain.parallel.workers import timeouts
from partrain.parallel.workers.fork_server import (
    MAY_NOT_FORK,
    PRELOAD_MODULE,
    child_environment,
    end_fork_server,
    kill_fork_server,
    start_fork_server,
)
from partrain.parallel.workers.process import WorkerProcess
from partrain.parallel.workers.tile_computer import Computation
from partrain.parallel.workers.worker import work
from partrain.parallel.workers.worker_handle import WorkerHandle
from partrain.system.process_limits import reporting_process_limit, too_many_processes
from partrain.system.shared_arrays import SharedArrays

# The coordinator's open files for each worker: two pipes, those of `multiprocessing`, the process descriptor.
FILES_PER_WORKER = 5

# How often the start of a worker is tried if the fork server dies during it.
MAX_STARTS = 5


class WorkerStarter:
    """Starts workers.

    Parameters
    ----------
    computation : the network, the arrays and the tiling that they compute with.
    boxes : the shared arrays of the pool's `Mailboxes`.
    log : called with each line for the log.
    """

    def __init__(self, computation: Computation, boxes: SharedArrays, log: Callable[[str], None]) -> None:
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        self._context = multiprocessing.get_context(method)
        self._computation, self._boxes, self._log = computation, boxes, log

    def start(self, name: str, number: int) -> WorkerHandle:
        """Start a worker, and the fork server if it does not run.

        Raises
        ------
        ResourceError
            The limit on processes is reached.
        FailedRun
            The fork server died in each of MAX_STARTS attempts.
        """
        for attempt in range(1, MAX_STARTS + 1):
            try:
                return self._start_process(name, number)
            except (EOFError, ConnectionError) as error:
                # If the worker was forked nevertheless, its pipe has closed, and it ends.
                if end_fork_server() == MAY_NOT_FORK:
                    raise too_many_processes() from error
                if attempt == MAX_STARTS:
                    raise FailedRun(f"{name} cannot be started: the fork server died {MAX_STARTS} times") from error
                self._log(f"the fork server died while it started {name}; starting another one")
        raise AssertionError("unreachable")

    def _start_process(self, name: str, number: int) -> WorkerHandle:
        kernels, dtype = self._computation.kernels, self._computation.dtype
        # One pipe per direction: a two-way pipe is a pair of sockets, and a message through it takes longer.
        far_commands, commands = self._context.Pipe(duplex=False)
        replies, far_replies = self._context.Pipe(duplex=False)
        process = self._context.Process(  # type: ignore[attr-defined]
            target=work,
            args=(
                far_commands,
                far_replies,
                self._boxes,
                number,
                self._computation,
                PRELOAD_MODULE,
            ),
            name=f"partrain {name}",
            daemon=True,
        )
        start_fork_server(kernels, dtype)
        # A stopped fork server would block `start` forever, so kill it: `start` then fails.
        watchdog = threading.Timer(timeouts.START_UP_SECONDS, kill_fork_server)
        try:
            with far_commands, far_replies, reporting_process_limit(), child_environment(kernels, dtype):
                watchdog.start()
                process.start()
        except BaseException:
            commands.close()
            replies.close()
            raise
        finally:
            watchdog.cancel()
            if watchdog.ident is not None:
                watchdog.join()
        return WorkerHandle(name, number, WorkerProcess(process), commands, replies)
