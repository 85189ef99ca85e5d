"""The pool of worker processes: one pipe each, no lock, no queue, no barrier.

A killed holder of a lock would hang the others, and so would a killed reader of a queue; a killed owner of a
pipe is seen at once, as its end. The coordinator waits on all pipes with one selector. What a dead worker had
been told to compute is given to the next free one, and the worker gets a successor.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.resource_tracker
import os
import selectors
import signal
import sys
import types
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Protocol

from partrain.errors import FailedRun
from partrain.parallel.tiles import num_tiles
from partrain.parallel.worker import (
    DONE,
    ERROR,
    GRADIENTS,
    HELLO,
    PRELOAD_VARIABLE,
    Command,
    Computation,
    TileComputer,
    work,
)

# How often a command may fail with an exception: once more elsewhere, for it could have been that machine's
# memory or a signal; the second time it is the program.
MAX_ATTEMPTS = 2

# How long a worker may take to end after its pipe was closed, before it is killed. Liveness only.
SHUTDOWN_SECONDS = 5.0

# By its name, for importing it here would do to the coordinator what it does to the fork server. The fork server
# passes over a name that it cannot import, without a word: so a worker says whether it found the module.
PRELOAD_MODULE = "partrain.parallel.preload"

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
)


def start_fork_server(kernels: str, dtype: str) -> None:
    """Start the fork server, if it does not run yet; it loads its modules and kernels while the caller goes on.

    Parameters
    ----------
    kernels, dtype : the kernel set, and the floating-point type, that the workers will need.
    """
    if "forkserver" in multiprocessing.get_all_start_methods():
        with _conditions_for_children(kernels, dtype):
            forkserver.set_forkserver_preload([PRELOAD_MODULE])
            forkserver.ensure_running()


class ComputeGroup(Protocol):
    """Whoever carries out commands: a pool of workers, or the coordinator itself."""

    num_tiles_computed: dict[str, int]

    @property
    def pids(self) -> list[int]:
        """The processes besides the coordinator."""

    def run(self, commands: Sequence[Command]) -> None:
        """Return when all commands have been carried out."""

    def close(self) -> None:
        """End all processes."""


class Inline:
    """Computes in the calling process: for debugging and profiling. The same bits as with any pool."""

    def __init__(self, computation: Computation) -> None:
        self._computer = TileComputer(computation)
        self._tile = computation.tile
        self.num_tiles_computed = {"coordinator": 0}

    @property
    def pids(self) -> list[int]:
        """No process."""
        return []

    def run(self, commands: Sequence[Command]) -> None:
        """Carry out all commands, in their order."""
        for command in commands:
            self._computer.carry_out(command)
            if command.operation == GRADIENTS:
                self.num_tiles_computed["coordinator"] += num_tiles(command.last - command.first, self._tile)

    def close(self) -> None:
        """Do nothing: there are no processes."""


@dataclass
class _Task:
    command: Command
    attempts: int = 0


@dataclass
class _Worker:
    name: str
    process: BaseProcess
    connection: Connection
    task: _Task | None = None


class WorkerPool:
    """`num_workers` processes that carry out commands.

    Parameters
    ----------
    num_workers : how many; at least 1.
    computation : what they compute on.
    max_restarts : how many dead workers are replaced, all together, before the run fails.
    log : called with a line for the log.

    Side effects
    ------------
    Starts the fork server of `multiprocessing`, if it does not run yet, and the workers.
    """

    def __init__(
        self, num_workers: int, computation: Computation, *, max_restarts: int, log: Callable[[str], None]
    ) -> None:
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        self._context = multiprocessing.get_context(method)
        self._computation = computation
        self._max_restarts = max_restarts
        self._log = log
        self._num_restarts = 0
        self._selector = selectors.DefaultSelector()
        self.num_tiles_computed = {f"worker {k}": 0 for k in range(num_workers)}
        self._workers: dict[str, _Worker] = {}
        try:
            for name in self.num_tiles_computed:
                self._start(name)
        except BaseException:
            self.close()
            raise

    @property
    def pids(self) -> list[int]:
        """The processes of the pool, the fork server among them."""
        server = [pid] if (pid := getattr(forkserver._forkserver, "_forkserver_pid", None)) else []
        return server + [worker.process.pid for worker in self._workers.values() if worker.process.pid]

    def run(self, commands: Sequence[Command]) -> None:
        """Return when all commands have been carried out, each by one worker at a time.

        Raises
        ------
        FailedRun
            A command raised in two workers, or more workers died than `max_restarts`.
        """
        waiting = deque(_Task(command) for command in commands)
        num_unfinished = len(waiting)
        for worker in list(self._workers.values()):
            self._give(worker, waiting)
        while num_unfinished:
            for key, _ in self._selector.select():
                num_unfinished -= self._receive(key.data, waiting)

    def close(self) -> None:
        """End all workers: close their pipes, and kill whoever does not end by it."""
        for worker in self._workers.values():
            worker.connection.close()
        for worker in self._workers.values():
            _end(worker.process)
        self._workers.clear()
        self._selector.close()

    def _give(self, worker: _Worker, waiting: deque[_Task]) -> None:
        """Send the next waiting task, if there is one and the worker has none."""
        if worker.task is not None or not waiting:
            return
        worker.task = waiting.popleft()
        with contextlib.suppress(BrokenPipeError):  # it has died; its pipe's end will say so to `_receive`
            worker.connection.send_bytes(worker.task.command.encode())

    def _receive(self, name: str, waiting: deque[_Task]) -> int:
        """Take one message of a worker; return how many commands it finished (0 or 1)."""
        worker = self._workers[name]
        try:
            message = worker.connection.recv_bytes()
        except (EOFError, ConnectionError):
            self._replace(worker, waiting)
            return 0
        kind, text = message[:1], message[1:].decode()
        if kind == HELLO:
            if text != "1":
                self._log(f"{name} found no preloaded kernels and loaded them itself")
            return 0
        task, worker.task = worker.task, None
        if kind == ERROR:
            self._retry(worker, task, text, waiting)
            return 0
        assert kind == DONE
        assert task is not None
        if task.command.operation == GRADIENTS:
            num_examples = task.command.last - task.command.first
            self.num_tiles_computed[name] += num_tiles(num_examples, self._computation.tile)
        self._give(worker, waiting)
        return 1

    def _retry(self, worker: _Worker, task: _Task | None, worker_traceback: str, waiting: deque[_Task]) -> None:
        """Have a task that raised in `worker` tried once more, elsewhere if there is another worker."""
        if task is None or task.attempts + 1 == MAX_ATTEMPTS:
            raise FailedRun(f"{worker.name} failed; its own traceback:\n\n{worker_traceback.rstrip()}")
        self._log(f"{worker.name} raised, the tiles are tried once more:\n{worker_traceback.rstrip()}")
        task.attempts += 1
        waiting.append(task)
        others = [w for w in self._workers.values() if w is not worker]
        idle = next((w for w in others if w.task is None), None)
        if idle or not others:
            self._give(idle or worker, waiting)
        # else the first of the others that is done takes it

    def _replace(self, dead: _Worker, waiting: deque[_Task]) -> None:
        """Start a successor of a dead worker, and have its task done by somebody.

        The end of its pipe is also its own: the system unmaps a process's memory before it closes its files, so
        it can no longer write into the shared arrays.
        """
        self._selector.unregister(dead.connection)
        dead.connection.close()
        cause = _end(dead.process)
        if dead.task is not None:
            waiting.appendleft(dead.task)
        if self._num_restarts == self._max_restarts:
            del self._workers[dead.name]
            raise FailedRun(
                f"{dead.name} {cause}, and {self._max_restarts} workers have been replaced already "
                "(workers.max_restarts)"
            )
        self._num_restarts += 1
        self._log(f"{dead.name} {cause}; a successor takes its place")
        self._give(self._start(dead.name), waiting)

    def _start(self, name: str) -> _Worker:
        connection, far_end = self._context.Pipe()
        process = self._context.Process(  # type: ignore[attr-defined]
            target=work,
            args=(far_end, self._computation, PRELOAD_MODULE),
            name=f"partrain {name}",
            daemon=True,
        )
        start_fork_server(self._computation.kernels, self._computation.dtype)
        with far_end, _conditions_for_children(self._computation.kernels, self._computation.dtype):
            process.start()
        worker = self._workers[name] = _Worker(name, process, connection)
        self._selector.register(connection, selectors.EVENT_READ, name)
        return worker


@contextlib.contextmanager
def _conditions_for_children(kernels: str, dtype: str) -> Iterator[None]:
    """What the fork server and its workers find at birth, and the coordinator only while it starts them."""
    environment = dict.fromkeys(THREAD_VARIABLES, "1")
    environment[PRELOAD_VARIABLE] = f"{kernels}:{dtype}"
    before = {name: os.environ.get(name) for name in environment}
    # The resource tracker is started first: its start unblocks signals.
    multiprocessing.resource_tracker.ensure_running()
    # A signal to the process group must not kill a child before it can ignore it.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    # Workers need nothing of the main program; `multiprocessing` would run its file once more in each.
    main_program = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        os.environ.update(environment)
        yield
    finally:
        sys.modules["__main__"] = main_program
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _end(process: BaseProcess) -> str:
    """Wait for the end of a process whose pipe is closed, kill it if it does not come; return what it died of."""
    process.join(SHUTDOWN_SECONDS)
    exit_code = process.exitcode
    if exit_code is None:
        process.kill()
        process.join()
    process.close()
    if exit_code is None:
        return "did not end with its pipe and was killed"
    if exit_code < 0:
        name = signal.Signals(-exit_code).name
        return f"was killed by {name}" + (" (probably out of memory)" if name == "SIGKILL" else "")
    return f"ended with exit code {exit_code}"
