"""Starts the program in milliseconds: a server process has imported it and loaded its kernels once, and forks.

A fresh interpreter takes more than a second to start the program, and another one for its fork server. A fork of
the server goes on where both would be by then, in a session, directory and environment of its own. Within it,
multiprocessing's fork server and resource tracker are forks, too. All the rest is the program as it is.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import multiprocessing
import multiprocessing.util
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from partrain.system import fault_injection

# The server starts in about two seconds, or in about half a minute if it has to compile the kernels.
START_SECONDS = 300.0


# ---- in the tests


class ProgramServer:
    """The server's client. Forks are children of the server, which reports their starts and ends."""

    def __init__(self) -> None:
        self._connection, other = multiprocessing.Pipe()
        paths = {"PYTHONPATH": str(Path(__file__).parents[1])}
        options = {"PYTHONFAULTHANDLER": "1", "OPENBLAS_NUM_THREADS": "1"}
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.program_server", str(other.fileno())],
                env=os.environ | paths | options,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[other.fileno()],
            )
        self._exit_codes: dict[int, int] = {}
        atexit.register(self.close)

    @property
    def pid(self) -> int:
        """The process id of the server."""
        return self._process.pid

    def start(
        self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str], files: Sequence[Path], code: str
    ) -> ForkedProgram:
        """Start `python -m partrain`, or `python -c code`, in a fork; `files` are its stdout and stderr."""
        self._connection.send((list(arguments), str(folder), dict(environment), list(map(str, files)), code))
        while (started := self._receive()) is None:
            pass
        return ForkedProgram(started, self)

    def exit_code(self, pid: int, timeout: float) -> int | None:
        """Return the exit code of a fork, or None if it has not ended within `timeout`; a signal's is negative."""
        deadline = time.monotonic() + timeout
        while pid not in self._exit_codes and self._connection.poll(max(0.0, deadline - time.monotonic())):
            self._receive()
        return self._exit_codes.get(pid)

    def _receive(self) -> int | None:
        """Return the process id of a fork that has started; keep the exit code of one that has ended."""
        assert self._connection.poll(START_SECONDS), "the program server hangs"
        pid, exit_code = self._connection.recv()
        if exit_code is not None:
            self._exit_codes[pid] = exit_code
        return None if exit_code is not None else pid

    def close(self) -> None:
        """End the server."""
        self._connection.close()
        self._process.wait()


class ForkedProgram:
    """A program that the server has forked, with the methods of `subprocess.Popen` that tests need."""

    def __init__(self, pid: int, server: ProgramServer) -> None:
        self.pid = pid
        self._server = server

    @property
    def returncode(self) -> int | None:
        """The exit code; negative for a signal, None before the end."""
        return self.poll()

    def poll(self) -> int | None:
        """Return the exit code, or None if the program has not ended."""
        return self._server.exit_code(self.pid, 0)

    def wait(self, timeout: float = START_SECONDS) -> int:
        """Return the exit code when the program has ended; raise TimeoutExpired if it does not end in time."""
        exit_code = self._server.exit_code(self.pid, timeout)
        if exit_code is None:
            raise subprocess.TimeoutExpired("partrain", timeout)
        return exit_code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the program has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it ended just now
                os.kill(self.pid, number)


@functools.cache
def program_server() -> ProgramServer:
    """Return the server of this test session; it starts when it is first needed."""
    return ProgramServer()


def program_server_pid() -> int | None:
    """Return the process id of the server, or None if it has not been started."""
    return program_server().pid if program_server.cache_info().currsize else None


# ---- in the server


def serve(connection: Connection) -> tuple[Any, ...]:
    """Fork for each request; return in each fork, with its request. The server itself ends with the connection."""
    woken, wakes = socket.socketpair()
    for end in (woken, wakes):
        end.setblocking(False)
    signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    with contextlib.suppress(EOFError, BrokenPipeError):  # when the tests have ended
        while True:
            ready, _, _ = select.select([connection, woken], [], [])
            if woken in ready:
                with contextlib.suppress(BlockingIOError):
                    woken.recv(4096)
                _report_ends(connection)
            if connection in ready:
                request: tuple[Any, ...] = connection.recv()
                pid = os.fork()
                if pid == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    for end in (woken, wakes, connection):
                        end.close()
                    return request
                connection.send((pid, None))
    os._exit(0)


def _report_ends(connection: Connection) -> None:
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            connection.send((ended[0], os.waitstatus_to_exitcode(ended[1])))


def load_kernels() -> None:
    """Load all kernels; compile those that are not in the cache."""
    from tests.loaded_kernels import load_all_kernels

    for kernels, dtype in (("fast", "float32"), ("loops", "float32"), ("loops", "float64")):
        load_all_kernels(kernels, dtype)


def load_program() -> None:
    """Import what a training imports, by a short training."""
    from partrain.interface.command_line import main as run_program
    from tests.whole_runs import write_config

    load_kernels()
    with tempfile.TemporaryDirectory() as folder:
        config = write_config(Path(folder), {"training.max_steps": 3})
        run_program(["--config", str(config), "--run-dir", f"{folder}/run", "--workers", "0", "-q"])


def become_program(
    arguments: list[str], folder: str, environment: dict[str, str], files: list[str], code: str
) -> NoReturn:
    """Run the program in this fork, and exit."""
    os.setsid()
    os.chdir(folder)
    for path, descriptor in zip(files, (1, 2), strict=True):
        opened = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.environ.clear()
    os.environ.update(environment)
    importlib.reload(fault_injection)  # it reads the environment when it is imported
    multiprocessing.util.spawnv_passfds = fork_in_place_of_exec  # type: ignore[attr-defined]
    sys.argv = ["-c" if code else "partrain", *arguments]
    exit_with(
        lambda: exec(code, {"__name__": "__main__"}) if code else runpy.run_module("partrain", None, "__main__", True)
    )


def exit_with(run: Callable[[], object]) -> NoReturn:
    """Call `run` and end this process as an interpreter would, but for freeing its memory, which takes 0.4 s."""
    exit_code = 0
    try:
        run()
    except SystemExit as ending:
        exit_code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
        if isinstance(ending.code, str):
            print(ending.code, file=sys.stderr)
    except BaseException:
        exit_code = 1
        sys.excepthook(*sys.exc_info())
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(exit_code)


def fork_in_place_of_exec(path: bytes, args: Sequence[str], passfds: Sequence[int]) -> int:
    """Run `python -c code` in a fork that has what an exec would leave it; return the process id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks of a process with threads
        pid = os.fork()
    if pid:
        return pid
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    first = 3
    for kept in sorted(passfds):
        os.closerange(first, kept)
        first = kept + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))
    sys.argv = ["-c"]
    exit_with(lambda: exec(args[list(args).index("-c") + 1], {"__name__": "__main__"}))


def main() -> None:
    """Serve requests that come through the connection with the given file descriptor."""
    load_program()
    gc.freeze()  # a collection in a fork would copy every page that holds an object
    become_program(*serve(Connection(int(sys.argv[1]))))


if __name__ == "__main__":
    main()
